package dev.smolship.core.bundle

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import java.io.Closeable
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream

/** What fetches by HTTP; the platform's own, or a test's. */
fun interface Http {
    /** GET [url], of which only the bytes from [from] on are wanted (Range) where that is not 0. */
    @Throws(IOException::class)
    fun get(url: String, from: Long): Response
}

/**
 * A server's answer.
 *
 * @property first the position of the body's first byte, as Content-Range has it; null where that is not said
 */
class Response(val status: Int, val first: Long?, val body: InputStream) : Closeable {
    override fun close() = body.close()
}

/**
 * A bundle from a server, below [url] the same paths as in its manifest. It can be broken off at any time: what is in
 * [folder] by then is used the next time. Each file is held against the size and SHA-256 of the manifest, which is written
 * last: a folder without one is not complete.
 *
 * @property manifestSha256 of the manifest, where it is known from elsewhere
 */
class Download(
    private val http: Http,
    private val url: String,
    private val folder: File,
    private val progress: Progress,
    private val manifestSha256: String? = null,
    private val usable: (File) -> Long = File::getUsableSpace,
) {
    private lateinit var counter: Counter

    /** Fetches what is missing. */
    fun run(): Manifest {
        if ('?' in url || '#' in url) {
            throw Refusal("the address cannot be used", url, "the folder of a bundle, without ? and #")
        }
        val raw = manifestBytes()
        val manifest = Manifest.read(raw)
        val total = manifest.bytesToWrite()
        writing(folder, usable) { makeFolderOf(File(folder, Manifest.NAME)) }
        removeOthers(manifest)
        needsRoom(folder, total - manifest.files.keys.sumOf { inside(folder, it).length() }, usable)
        counter = Counter(progress, total)
        for ((name, listed) in manifest.files) fetch(name, listed)
        val file = File(folder, Manifest.NAME)
        writing(file, usable) { file.writeBytes(raw) }
        return manifest
    }

    private fun manifestBytes(): ByteArray {
        val found = answered(Manifest.NAME, 0) { response ->
            if (response.status != OK) throw status(Manifest.NAME, response.status)
            response.body.all(Manifest.NAME, Manifest.LIMIT) {
                if (!progress.at(Manifest.NAME, 0, 0)) throw Cancelled()
            }
        }
        val hash = sha256().apply { update(found) }.hex()
        if (manifestSha256 != null && hash != manifestSha256) {
            throw Refusal("${Manifest.NAME} is not the one that was meant", hash, manifestSha256, TODO)
        }
        return found
    }

    /** Removes files of an earlier try that the manifest does not list, or that are longer than it says. */
    private fun removeOthers(manifest: Manifest) {
        for (name in filesBelow(folder)) {
            val listed = manifest.files[name]
            val file = File(folder, name)
            if (listed == null || file.length() > listed.size) file.delete()
        }
    }

    private fun fetch(name: String, listed: ListedFile) {
        val file = inside(folder, name)
        var again = false
        repeat(TRIES) {
            val had = file.length()
            val part = Part(name, file, listed)
            part.fill()
            val fresh = part.begunAt == 0L
            if (part.size == listed.size && part.hash == listed.sha256) {
                counter.add(name, listed.size)
                return
            }
            if (part.size < listed.size && part.size > had) {
                val got = "${part.size} of ${listed.size} bytes"
                progress.said("$name: the server ended after $got; it is asked for the rest")
                return@repeat
            }
            file.delete()
            val what = when {
                part.elsewhere -> "another part than was asked for"
                part.size > listed.size -> "longer than the manifest says"
                part.size < listed.size -> "shorter than the manifest says"
                else -> "another SHA-256 than the manifest says"
            }
            if (fresh || again) {
                throw Refusal("what the server has is not what its manifest lists", "$name: $what", todo = TODO)
            }
            again = true
            progress.said("$name: $what, perhaps altered since the download began; it begins again")
        }
        throw Refusal("the server does not send a file to its end", "$name after $TRIES tries", todo = AGAIN)
    }

    /** What is there of a file, and the rest as the server has it. */
    private inner class Part(private val name: String, private val file: File, private val listed: ListedFile) {
        private var digest = sha256()
        var size = 0L
            private set

        /** How much was there already; 0 where all of it came from one answer. */
        var begunAt = 0L
            private set
        val hash: String by lazy { digest.hex() }

        /** Whether the server sent a part that nobody asked for, and which was not taken. */
        var elsewhere = false
            private set

        fun fill() {
            if (file.isDirectory) removeAll(file) // of a manifest that was exchanged meanwhile
            if (file.isFile) {
                file.inputStream().use { it.blocks(::count) }
                begunAt = size
                if (size == listed.size) return
            }
            if (listed.size == 0L) {
                writing(file, usable) {
                    makeFolderOf(file)
                    file.writeBytes(ByteArray(0))
                }
                return
            }
            answered(name, size) { response ->
                when {
                    response.status == PARTIAL && response.first == size -> Unit
                    response.status == OK -> restart()
                    response.status == UNSATISFIABLE && size > 0 -> return@answered // the server has no more of it
                    response.status == PARTIAL && size > 0 -> {
                        elsewhere = true
                        return@answered
                    }
                    response.status == PARTIAL ->
                        throw Refusal("the server sent another part", "$name from ${response.first}", "all of it")
                    else -> throw status(name, response.status)
                }
                writing(file, usable) { makeFolderOf(file) }
                val stream = writing(file, usable) { FileOutputStream(file, size > 0) }
                stream.use { append(response.body, it) }
            }
        }

        private fun append(body: InputStream, to: FileOutputStream) {
            body.blocks { block, bytes ->
                writing(file, usable) { to.write(block, 0, bytes) }
                count(block, bytes)
                if (size > listed.size) return // the rest is not wanted
            }
        }

        private fun restart() {
            size = 0
            begunAt = 0
            digest = sha256()
        }

        private fun count(block: ByteArray, count: Int) {
            digest.update(block, 0, count)
            size += count
            counter.look(name, size)
        }
    }

    private fun <T> answered(name: String, from: Long, use: (Response) -> T): T {
        val address = url.trimEnd('/') + "/" + quoted(name)
        try {
            return http.get(address, from).use(use)
        } catch (error: IOException) {
            throw Refusal("the download was broken off", "$name: ${error.message}", todo = AGAIN)
        }
    }

    private fun status(name: String, status: Int) =
        Refusal("the server does not give $name", "HTTP status $status", "200, or 206 for a part", "see the address")

    private companion object {
        const val OK = 200
        const val PARTIAL = 206
        const val UNSATISFIABLE = 416
        const val TRIES = 8
        const val AGAIN = "start it again: it goes on where it was"
        const val TODO = "ask whoever offers the bundle"

        /** A path as part of an address. */
        fun quoted(path: String): String = path.toByteArray().joinToString("") {
            val char = it.toInt().toChar()
            val plain = char in 'a'..'z' || char in 'A'..'Z' || char in '0'..'9' || char in "-._~/"
            if (plain) char.toString() else "%%%02X".format(it)
        }
    }
}
