package dev.smolship.demo.bundles

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Fault
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.bundle.Problem
import dev.smolship.core.bundle.checkFiles
import java.io.File
import java.io.IOException
import java.nio.file.Files

/**
 * Holds a target's files against the manifest before native code sees them. Reading all of a large model takes seconds:
 * once they were found as they should be, it will do that none was changed since. The system's own time of change says
 * that: unlike the time of modification, nobody can set it. What was found is kept in [memory], a folder of the app's own,
 * which nobody else writes.
 */
class Checked(
    private val memory: File,
    private val problems: (File, Manifest) -> List<Problem> = { bundle, manifest -> checkFiles(bundle, manifest) },
) {
    /**
     * Refuses a missing or altered file among those of the target's [folder] and of the bundle's own, and what lies in the
     * folder and is not listed.
     */
    fun check(bundle: File, manifest: Manifest, folder: String) {
        val needed = manifest.files.filterKeys { it.startsWith("$folder/") || '/' !in it }
        val state = state(bundle, manifest, folder, needed.keys)
        val kept = File(memory, "${bundle.name}.$folder")
        if (kept.isFile && kept.readText() == state) return
        kept.delete()
        val found = problems(bundle, manifest.copy(files = needed))
            .filter { it.fault != Fault.UNLISTED || it.file.startsWith("$folder/") }
        if (found.isNotEmpty()) {
            throw Refusal(
                "the bundle is not as it was exported",
                found.take(SOME).joinToString("; "),
                "the files that its manifest lists",
                "copy or download it again",
            )
        }
        memory.mkdirs()
        kept.writeText(state)
    }

    private fun state(bundle: File, manifest: Manifest, folder: String, needed: Set<String>): String {
        val there = File(bundle, folder).walkTopDown().filter { it.isFile }.map { it.relativeTo(bundle).path }
        val lines = (needed + there).sorted().map { name ->
            val file = File(bundle, name)
            "$name ${file.length()} ${file.lastModified()} ${changed(file)} ${manifest.files[name]?.sha256}"
        }
        return lines.joinToString("\n")
    }

    /** Which file it is, and when the system saw it changed; nothing where that is not known. */
    private fun changed(file: File): String = try {
        Files.readAttributes(file.toPath(), "unix:dev,ino,ctime").toSortedMap().values.joinToString(" ")
    } catch (_: UnsupportedOperationException) {
        ""
    } catch (_: IllegalArgumentException) {
        ""
    } catch (_: IOException) {
        ""
    }

    private companion object {
        const val SOME = 5
    }
}
