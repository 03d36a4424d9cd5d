package dev.smolship.core.bundle

import java.io.File
import java.io.IOException
import java.nio.file.FileVisitResult
import java.nio.file.Files
import java.nio.file.LinkOption.NOFOLLOW_LINKS
import java.nio.file.Path
import java.nio.file.SimpleFileVisitor
import java.nio.file.attribute.BasicFileAttributes

/** What is wrong with a file of a bundle. */
enum class Fault { MISSING, SIZE, SHA256, UNLISTED }

data class Problem(val file: String, val fault: Fault, private val words: String) {
    override fun toString() = "$file: $words"
}

/** What is wrong with the files of the bundle [root] whose names begin with [below]: missing, altered or unlisted. */
fun checkFiles(
    root: File,
    manifest: Manifest,
    below: String = "",
    progress: Progress = Progress { _, _, _ -> true },
): List<Problem> {
    val listed = manifest.files.filterKeys { it.startsWith(below) }
    val counter = Counter(progress, listed.values.sumOf { maxOf(it.size, 0) })
    val wrong = listed.mapNotNull { (name, file) -> problem(root, name, file, counter) }
    val others = filesBelow(root).filter { it.startsWith(below) && it !in manifest.files && it != Manifest.NAME }
    return wrong + others.sorted().map { Problem(it, Fault.UNLISTED, "not in the manifest") }
}

private fun problem(root: File, name: String, listed: ListedFile, counter: Counter): Problem? {
    val file = inside(root, name)
    if (!file.isFile) return Problem(name, Fault.MISSING, "no such file")
    if (file.length() != listed.size) {
        return Problem(name, Fault.SIZE, "${file.length()} bytes, the manifest says ${listed.size}")
    }
    val hash = try {
        sha256(file) { counter.add(name, it) }
    } catch (error: IOException) {
        return Problem(name, Fault.SHA256, "cannot be read: ${error.message}")
    }
    return if (hash == listed.sha256) null else Problem(name, Fault.SHA256, "its SHA-256 is not the manifest's")
}

/** SHA-256 of a file; [each] is told of every block's size. */
internal fun sha256(file: File, each: (Long) -> Unit = {}): String {
    val digest = sha256()
    file.inputStream().use { stream ->
        stream.blocks { block, count ->
            digest.update(block, 0, count)
            each(count.toLong())
        }
    }
    return digest.hex()
}

/** Names of all that is no folder below [root], links not followed. */
internal fun filesBelow(root: File): List<String> {
    val home = root.toPath()
    Files.walk(home).use { found ->
        val names = ArrayList<String>()
        found.filter { !Files.isDirectory(it, NOFOLLOW_LINKS) }
            .forEach { names.add(home.relativize(it).toString().replace(File.separatorChar, '/')) }
        return names
    }
}

/** Removes a folder with all that is in it; links are removed, not followed. */
internal fun removeAll(folder: File) {
    if (!Files.exists(folder.toPath(), NOFOLLOW_LINKS)) return
    Files.walkFileTree(
        folder.toPath(),
        object : SimpleFileVisitor<Path>() {
            override fun visitFile(file: Path, attributes: BasicFileAttributes): FileVisitResult = remove(file)

            override fun postVisitDirectory(folder: Path, error: IOException?): FileVisitResult = remove(folder)

            private fun remove(path: Path): FileVisitResult {
                Files.delete(path)
                return FileVisitResult.CONTINUE
            }
        },
    )
}
