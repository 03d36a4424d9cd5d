package dev.smolship.demo.bundles

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Fault
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.bundle.checkFiles
import java.io.File

/**
 * Holds a target's files against the manifest before native code sees them. Reading all of a large model takes seconds:
 * once they were found as they should be, sizes and times that have not changed since will do. What was found is kept in
 * [memory], a folder of the app's own, which nobody else writes.
 */
class Checked(private val memory: File) {
    /** Refuses a missing or altered file among those of the target's [folder] and of the bundle's own. */
    fun check(bundle: File, manifest: Manifest, folder: String) {
        val needed = manifest.files.keys.filter { it.startsWith("$folder/") || '/' !in it }
        val now = needed.sorted().joinToString("\n") { name ->
            File(bundle, name).let { "$name ${it.length()} ${it.lastModified()}" }
        }
        val state = "${manifest.weightsDigest}\n$now"
        val kept = File(memory, "${bundle.name}.$folder")
        if (kept.isFile && kept.readText() == state) return
        kept.delete()
        val some = manifest.copy(files = manifest.files.filterKeys { it in needed })
        val problems = checkFiles(bundle, some).filter { it.fault != Fault.UNLISTED }
        if (problems.isNotEmpty()) {
            throw Refusal(
                "the bundle is not as it was exported",
                problems.take(SOME).joinToString("; "),
                "the files that its manifest lists",
                "copy or download it again",
            )
        }
        memory.mkdirs()
        kept.writeText(state)
    }

    private companion object {
        const val SOME = 5
    }
}
