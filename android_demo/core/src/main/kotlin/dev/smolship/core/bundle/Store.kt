package dev.smolship.core.bundle

import dev.smolship.core.Refusal
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream

/** Where a bundle is copied from: a folder that the user picked. */
fun interface Source {
    /** The file of this path; null where there is none. */
    @Throws(IOException::class)
    fun open(path: String): InputStream?
}

/** A folder of the store: a bundle, or why it is none. */
class Stored(val name: String, val folder: File, val manifest: Manifest?, val refusal: Refusal?)

/**
 * The bundles of the app, each a folder below [root]. What is not complete lies in hidden folders beside them, and gets
 * its name in one step.
 */
class Store(private val root: File, private val usable: (File) -> Long = File::getUsableSpace) {
    /** All bundles by name; the files are not looked at: [checkFiles] does. */
    fun list(): List<Stored> =
        root.listFiles().orEmpty().filter { it.isDirectory && !it.name.startsWith(".") }.sortedBy { it.name }.map {
            try {
                Stored(it.name, it, Manifest.read(it), null)
            } catch (refusal: Refusal) {
                Stored(it.name, it, null, refusal)
            }
        }

    fun folder(name: String): File = File(root, usableName(name))

    /** Copies a bundle; each file is held against its size and SHA-256 on the way. */
    fun import(name: String, source: Source, progress: Progress): Manifest {
        val temporary = hidden(name, IMPORT)
        removeAll(temporary)
        try {
            val raw = manifestBytes(source)
            val manifest = Manifest.read(raw)
            val total = manifest.bytesToWrite()
            needsRoom(made(), total, usable)
            val counter = Counter(progress, total)
            for ((path, listed) in manifest.files) copy(source, path, listed, inside(temporary, path), counter)
            val file = File(temporary, Manifest.NAME)
            writing(file, usable) {
                makeFolderOf(file)
                file.writeBytes(raw)
            }
            settle(temporary, name)
            return manifest
        } finally {
            removeAll(temporary)
        }
    }

    /** Downloads a bundle; a download that was broken off goes on. See [Download]. */
    fun download(name: String, http: Http, url: String, progress: Progress, manifestSha256: String? = null): Manifest {
        val temporary = hidden(name, DOWNLOAD)
        made()
        val manifest = Download(http, url, temporary, progress, manifestSha256, usable).run()
        settle(temporary, name)
        return manifest
    }

    /** Forgets a bundle, or a download that was broken off. */
    fun remove(name: String) {
        val gone = File(root, ".${usableName(name)}$REMOVED")
        removeAll(gone)
        folder(name).renameTo(gone) // in one step: half a bundle is never listed
        removeAll(gone)
        removeAll(folder(name))
        removeAll(File(root, ".$name$DOWNLOAD"))
    }

    /** Removes what an import or a removal left behind that was ended with the app. Downloads stay. */
    fun clean() {
        for (file in root.listFiles().orEmpty()) {
            if (file.name.startsWith(".") &&
                (file.name.endsWith(IMPORT) || file.name.endsWith(REMOVED))
            ) {
                removeAll(file)
            }
        }
    }

    /** Names of the downloads that were broken off. */
    fun unfinished(): List<String> = root.list().orEmpty().filter { it.startsWith(".") && it.endsWith(DOWNLOAD) }
        .map { it.removePrefix(".").removeSuffix(DOWNLOAD) }.sorted()

    private fun usableName(name: String): String {
        plainName(name, "the bundle's name")
        if (name.startsWith('.') || name.toByteArray().size > LONGEST) {
            throw Refusal("the bundle's name cannot be used", name, "up to $LONGEST bytes that do not begin with a dot")
        }
        return name
    }

    private fun hidden(name: String, kind: String): File {
        if (folder(name).exists()) {
            throw Refusal("there is a bundle of this name", name, todo = "remove it first, or choose another name")
        }
        return File(root, ".$name$kind")
    }

    private fun made(): File {
        writing(File(root, "bundle"), usable) { makeFolderOf(File(root, "bundle")) }
        return root
    }

    private fun settle(temporary: File, name: String) {
        if (folder(name).exists() || !temporary.renameTo(folder(name))) {
            throw Refusal("the bundle cannot be put in its place", name, todo = "remove what has its name")
        }
    }

    private fun manifestBytes(source: Source): ByteArray =
        reading(source, Manifest.NAME) { it.all(Manifest.NAME, Manifest.LIMIT) }

    private fun copy(source: Source, path: String, listed: ListedFile, file: File, counter: Counter) {
        val digest = sha256()
        var size = 0L
        reading(source, path) { stream ->
            val out = writing(file, usable) {
                makeFolderOf(file)
                FileOutputStream(file)
            }
            out.use {
                stream.blocks { block, count ->
                    size += count
                    if (size > listed.size) throw altered(path, "longer than ${listed.size} bytes")
                    writing(file, usable) { out.write(block, 0, count) }
                    digest.update(block, 0, count)
                    counter.add(path, count.toLong())
                }
            }
        }
        if (size != listed.size) throw altered(path, "$size of ${listed.size} bytes")
        if (digest.hex() != listed.sha256) throw altered(path, "its SHA-256 is not the manifest's")
    }

    private fun altered(path: String, how: String) =
        Refusal("the bundle is not as it was written", "$path: $how", "what its manifest lists", "copy it again")

    private fun <T> reading(source: Source, path: String, use: (InputStream) -> T): T {
        try {
            val stream = source.open(path) ?: throw Refusal("the bundle lacks a file", path, todo = "copy it again")
            return stream.use(use)
        } catch (error: IOException) {
            throw Refusal("a file of the bundle cannot be read", "$path: ${error.message}", todo = "copy it again")
        }
    }

    private companion object {
        const val IMPORT = ".importing"
        const val DOWNLOAD = ".download"
        const val REMOVED = ".removed"
        const val LONGEST = 200
    }
}
