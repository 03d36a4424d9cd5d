package dev.smolship.demo.bundles

import dev.smolship.core.bundle.Source
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.ByteArrayInputStream
import java.io.File
import java.io.IOException
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.security.MessageDigest
import java.util.concurrent.Executor

/** The library with the platform's own HTTP client, against a server of this machine. */
class LibraryTest {
    @get:Rule val folder = TemporaryFolder()
    private val server = ServerSocket(0, 50, InetAddress.getLoopbackAddress())
    private val files = HashMap<String, ByteArray>()
    private val asked = ArrayList<Pair<String, String?>>()
    private val sentOn = HashMap<String, String>() // addresses that others are sent on to, by name
    private var most = Int.MAX_VALUE // bytes of an answer, after which the connection is closed
    private val address get() = "http://127.0.0.1:${server.localPort}/a/tiny"
    private val library by lazy {
        Library(folder.newFolder("bundles"), Executor(Runnable::run), Executor(Runnable::run)) { 0 }
    }

    @Before fun serve() {
        Thread {
            while (!server.isClosed) {
                try {
                    server.accept().use(::answer)
                } catch (_: IOException) {
                    // the test is over
                }
            }
        }.apply { isDaemon = true }.start()
        put("tokenizer.json" to "{}".toByteArray(), "onnx/model.onnx" to ByteArray(300_000) { (it * 31).toByte() })
    }

    @After fun stop() = server.close()

    private fun put(vararg content: Pair<String, ByteArray>) {
        files.putAll(content)
        files["manifest.json"] = manifest(mapOf(*content)).toByteArray()
    }

    /** One request and its answer: HTTP as far as it is used here. */
    private fun answer(client: Socket) {
        val lines = generateSequence(client.getInputStream().bufferedReader()::readLine).takeWhile {
            it.isNotEmpty()
        }.toList()
        val range = lines.firstOrNull { it.startsWith("Range: ") }?.removePrefix("Range: ")
        val name = lines.first().split(' ')[1].removePrefix("/a/tiny/")
        asked += name to range
        val out = client.getOutputStream()
        sentOn[name]?.let {
            return out.write("HTTP/1.1 302 Found\r\nLocation: $it\r\nContent-Length: 0\r\n\r\n".toByteArray())
        }
        val bytes = files[name] ?: return out.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".toByteArray())
        val from = range?.removePrefix("bytes=")?.removeSuffix("-")?.toInt() ?: 0
        val partial = "206 Partial\r\nContent-Range: bytes $from-${bytes.size - 1}/${bytes.size}"
        val status = if (from > 0) partial else "200 OK"
        val size = bytes.size - from
        out.write("HTTP/1.1 $status\r\nContent-Length: $size\r\nConnection: close\r\n\r\n".toByteArray())
        out.write(bytes, from, minOf(most, size))
    }

    @Test fun aBundleIsDownloadedAndChecked() {
        library.download("$address/", UrlHttp())
        assertNull(library.state.problem)
        val found = library.state.bundles.single()
        assertEquals("tiny", found.name)
        assertTrue(files.getValue("onnx/model.onnx").contentEquals(File(found.folder, "onnx/model.onnx").readBytes()))
        library.check(found)
        assertEquals("tiny", library.state.good)
        assertNull(library.state.job)
    }

    @Test fun aDownloadThatBrokeGoesOnWhereItWas() {
        most = 10_000
        library.download(address, UrlHttp())
        assertTrue(library.state.problem!!.contains("onnx/model.onnx"))
        assertEquals(emptyList<String>(), library.state.bundles.map { it.name })
        assertEquals(listOf(Unfinished("tiny", address)), library.state.unfinished)
        most = Int.MAX_VALUE
        asked.clear()
        library.download(library.state.unfinished.single().url!!, UrlHttp())
        assertEquals(emptyList<Unfinished>(), library.state.unfinished)
        assertEquals(listOf("tiny"), library.folder.list()!!.toList())
        assertEquals(listOf("tiny"), library.state.bundles.map { it.name })
        val range = asked.single { it.first == "onnx/model.onnx" }.second
        assertTrue("asked for $range", range != null && range.startsWith("bytes=") && range != "bytes=0-")
    }

    @Test fun anAnswerElsewhereIsTakenByTheSameProtocolAlone() {
        files["elsewhere"] = files.getValue("onnx/model.onnx")
        most = 10_000
        library.download(address, UrlHttp())
        most = Int.MAX_VALUE
        sentOn["onnx/model.onnx"] = "https://127.0.0.1:${server.localPort}/a/tiny/elsewhere"
        library.download(address, UrlHttp())
        assertTrue(library.state.problem, library.state.problem!!.contains("302"))
        sentOn["onnx/model.onnx"] = "http://localhost:${server.localPort}/a/tiny/elsewhere"
        library.download(address, UrlHttp())
        assertNull(library.state.problem)
        assertEquals(listOf("tiny"), library.state.bundles.map { it.name })
        assertTrue("$asked", asked.last { it.first == "elsewhere" }.second!!.startsWith("bytes="))
    }

    @Test fun anAlteredFileIsSaid() {
        library.download(address, UrlHttp())
        val found = library.state.bundles.single()
        val model = File(found.folder, "onnx/model.onnx")
        model.writeBytes(model.readBytes().also { it[7] = 1 })
        library.check(found)
        assertTrue(library.state.problem!!.contains("onnx/model.onnx"))
        assertNull(library.state.good)
    }

    @Test fun whatCannotBeDownloadedIsSaid() {
        library.download("$address-not", UrlHttp())
        assertTrue(library.state.problem!!.contains("404"))
        for (strange in listOf("", "smollm2", "file:///etc/passwd", "ftp://127.0.0.1/tiny")) {
            library.download(strange, UrlHttp())
            assertTrue(strange, library.state.problem != null)
            assertNull(library.state.job)
        }
        assertEquals(emptyList<Any>(), library.state.bundles)
    }

    @Test fun aFolderIsCopiedAndCanBeRemoved() {
        library.import(Source { path -> files[path]?.let(::ByteArrayInputStream) }) { "from a folder" }
        assertEquals(listOf("from a folder"), library.state.bundles.map { it.name })
        library.remove("from a folder")
        assertEquals(emptyList<String>(), library.state.bundles.map { it.name })
        library.import(Source { null }) { "nothing" }
        assertTrue(library.state.problem!!.contains("manifest.json"))
    }

    @Test fun aTemplateThatAsksForThinkingIsNoticed() {
        val name = "template.json"
        for (text in listOf("""{"name":"messages"}""", """{"name":"enable_thinking"}""")) {
            put(name to text.toByteArray())
            library.import(Source { path -> files[path]?.let(::ByteArrayInputStream) }) { "tiny ${text.length}" }
        }
        assertEquals(2, library.state.bundles.size)
        assertEquals(setOf("tiny 26"), library.state.thinkers)
    }

    @Test fun aCancelledCopyLeavesNothing() {
        val slow = Source { path ->
            library.cancel()
            files[path]?.let(::ByteArrayInputStream)
        }
        library.import(slow) { "tiny" }
        assertTrue(library.state.cancelled)
        assertNull(library.state.problem)
        assertEquals(emptyList<String>(), library.folder.list()!!.toList())
    }

    private companion object {
        fun manifest(files: Map<String, ByteArray>): String {
            val listed = files.entries.joinToString { (name, bytes) ->
                val hash = MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
                "\"$name\": {\"size\": ${bytes.size}, \"sha256\": \"$hash\"}"
            }
            val model = """{"source": "example/tiny", "revision": null, "architecture": "llama", "layers": 2, "hidden": 8,
                "heads": 2, "kv_heads": 1, "head_dim": 4, "vocab": 300, "parameters": 1000}"""
            val sampling = """{"do_sample": false, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0,
                "repetition_penalty": 1.0}"""
            return """{"schema": 2, "model": $model,
                "generation": {"ends": [], "bos": null, "pad": null, "adds_bos": false, "sampling": $sampling,
                               "special_tokens": {}, "template": null},
                "context": 64, "weights_digest": "", "weights_bytes": 1, "targets": {}, "tools": {}, "steps": {},
                "quantization": {"name": "int4", "linear": 4, "embedding": 8, "head": 8, "group": 32,
                                 "share_at_4_bits": 1.0, "notes": [], "lifted": 0},
                "files": {$listed}}"""
        }
    }
}
