package dev.smolship.core.bundle

import java.io.ByteArrayInputStream
import java.io.File
import java.io.IOException
import java.io.InputStream

/** Bundles to test with: any files, and a manifest of them. */
object Bundles {
    fun write(root: File, vararg files: Pair<String, String>): File {
        for ((name, text) in files) File(root, name).apply { parentFile!!.mkdirs() }.writeText(text)
        File(root, Manifest.NAME).writeText(manifest(*files))
        return root
    }

    fun manifest(vararg files: Pair<String, String>): String {
        val listed = files.joinToString { (name, text) ->
            "\"$name\": {\"size\": ${text.toByteArray().size}, \"sha256\": \"${sha256(text)}\"}"
        }
        return """
            {"schema": 2,
             "model": {"source": "example/tiny", "architecture": "Llama", "layers": 2, "hidden": 8, "vocab": 300,
                       "parameters": 1000},
             "generation": {"ends": [], "adds_bos": false, "special_tokens": {},
                            "sampling": {"do_sample": false, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
                                         "min_p": 0.0, "repetition_penalty": 1.0}},
             "context": 64,
             "quantization": {"name": "int4", "linear": 4, "embedding": 8, "head": 8, "group": 32,
                              "share_at_4_bits": 1.0, "notes": [], "lifted": 0},
             "weights_digest": "", "weights_bytes": 1, "targets": {}, "tools": {}, "steps": {},
             "files": {$listed}}
        """.trimIndent()
    }
}

/** A server of files, with faults to order. */
class FakeServer(val files: MutableMap<String, String>) : Http {
    /** What was asked for: the path and the first byte wanted. */
    val asked = ArrayList<Pair<String, Long>>()

    /** By path, how many bytes of an answer come before the connection breaks; each is used once. */
    val breaks = HashMap<String, ArrayDeque<Int>>()

    /** By path, how many bytes of an answer come before it ends as if complete. */
    val shortens = HashMap<String, Int>()
    var ranges = true

    /** By how much later an answer of a part begins than it was asked to. */
    var shift = 0

    /** Whether whole files come as parts, too. */
    var always = false

    /** Done with each answer. */
    var meanwhile: () -> Unit = {}
    var status = HashMap<String, Int>()

    override fun get(url: String, from: Long): Response {
        val path = url.removePrefix("$URL/")
        asked.add(path to from)
        if (path != Manifest.NAME) meanwhile()
        status[path]?.let { return Response(it, null, ByteArrayInputStream(ByteArray(0))) }
        val bytes = files[path]?.toByteArray() ?: return Response(404, null, ByteArrayInputStream(ByteArray(0)))
        val start = if (ranges) from.toInt() else 0
        if (start > 0 && start >= bytes.size) return Response(416, null, ByteArrayInputStream(ByteArray(0)))
        val rest = bytes.copyOfRange(start, bytes.size).let { it.copyOf(minOf(it.size, shortens[path] ?: it.size)) }
        val body = breaks[path]?.removeFirstOrNull()?.let { Breaking(rest, it) } ?: ByteArrayInputStream(rest)
        return if (start > 0 ||
            (always && path != Manifest.NAME)
        ) {
            Response(206, start + shift.toLong(), body)
        } else {
            Response(200, null, body)
        }
    }

    /** A connection that breaks after so many bytes. */
    private class Breaking(private val bytes: ByteArray, private var left: Int) : InputStream() {
        private var at = 0

        override fun read(): Int {
            if (left-- == 0) throw IOException("connection reset")
            return if (at < bytes.size) bytes[at++].toInt() and 0xff else -1
        }

        override fun read(into: ByteArray, offset: Int, length: Int): Int {
            if (length == 0) return 0
            val one = read()
            if (one < 0) return -1
            into[offset] = one.toByte()
            return 1
        }
    }

    companion object {
        const val URL = "https://example.org/a%20bundle"
    }
}
