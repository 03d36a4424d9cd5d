package dev.smolship.core.bundle

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class DownloadTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private lateinit var root: File
    private lateinit var server: FakeServer
    private val told = ArrayList<String>()
    private val watching = object : Progress {
        override fun at(file: String, done: Long, total: Long) = true

        override fun said(line: String) {
            told.add(line)
        }
    }

    @Before
    fun serve() {
        root = temporary.newFolder()
        server = FakeServer(hashMapOf(Manifest.NAME to Bundles.manifest(*FILES), *FILES))
    }

    private fun download(progress: Progress = watching, sha256: String? = null, free: Long = 1L shl 40): Manifest =
        Store(root) { free }.download("tiny", server, FakeServer.URL + "/", progress, sha256)

    private fun refused(what: String, free: Long = 1L shl 40, sha256: String? = null): Refusal {
        val refusal = assertThrows(Refusal::class.java) { download(free = free, sha256 = sha256) }
        assertTrue("$refusal", what in refusal.message)
        assertFalse(File(root, "tiny").exists())
        return refusal
    }

    private fun complete() {
        val found = Store(root).list().single()
        assertEquals(emptyList<Problem>(), checkFiles(found.folder, found.manifest!!))
        assertEquals(emptyList<String>(), Store(root).unfinished())
    }

    @Test
    fun `a bundle is fetched, with progress up to its size`() {
        val seen = ArrayList<Long>()
        download({ _, done, total -> seen.add(done).let { total == 0L || done <= total } })
        complete()
        assertEquals(listOf(0L, 33L, 33L, 33L, 35L, 35L), seen) // as bytes come, and when a file is complete
    }

    @Test
    fun `a path is quoted in the address`() {
        val name = "a b/ü%.bin"
        server.files[Manifest.NAME] = Bundles.manifest(name to "hello")
        server.files["a%20b/%C3%BC%25.bin"] = "hello"
        download()
        assertEquals("hello", File(root, "tiny/$name").readText())
    }

    @Test
    fun `a broken download goes on where it was`() {
        server.breaks["onnx/model.onnx"] = ArrayDeque(listOf(7))
        val refusal = refused("broken off")
        assertEquals("start it again: it goes on where it was", refusal.todo)
        assertEquals(listOf("tiny"), Store(root).unfinished())
        server.asked.clear()
        download()
        complete()
        assertEquals(listOf(Manifest.NAME to 0L, "onnx/model.onnx" to 7L, "z" to 0L), server.asked)
    }

    @Test
    fun `a server without ranges sends all again`() {
        server.ranges = false
        server.breaks["onnx/model.onnx"] = ArrayDeque(listOf(7))
        refused("broken off")
        download()
        complete()
    }

    @Test
    fun `another part than was asked for is not taken, and the file begins again`() {
        server.breaks["onnx/model.onnx"] = ArrayDeque(listOf(7))
        refused("broken off")
        server.shift = 1
        server.asked.clear()
        download()
        complete()
        assertEquals(listOf(7L, 0L), server.asked.filter { it.first == "onnx/model.onnx" }.map { it.second })
        assertTrue("$told", told.single().startsWith("onnx/model.onnx: another part than was asked for"))
        Store(root).remove("tiny")
        server.always = true
        refused("another part")
    }

    @Test
    fun `an ended download keeps what it has`() {
        val cancelling = Progress { file, done, _ -> file != "z" || done == 0L }
        assertThrows(Cancelled::class.java) { download(cancelling) }
        server.asked.clear()
        download()
        complete()
        assertEquals(listOf(Manifest.NAME to 0L), server.asked.filter { it.first != "z" })
    }

    @Test
    fun `a file that was altered while it was fetched begins again, and says so`() {
        server.breaks["onnx/model.onnx"] = ArrayDeque(listOf(7))
        val model = server.files.getValue("onnx/model.onnx")
        server.files["onnx/model.onnx"] = model.replace('w', 'W')
        refused("broken off")
        server.files["onnx/model.onnx"] = model
        download()
        complete()
        assertTrue("$told", told.single().startsWith("onnx/model.onnx: another SHA-256"))
    }

    @Test
    fun `a file that stays another than the manifest's is refused`() {
        server.files["onnx/model.onnx"] = server.files.getValue("onnx/model.onnx").replace('w', 'W')
        refused("onnx/model.onnx: another SHA-256")
        server.files["onnx/model.onnx"] = server.files.getValue("onnx/model.onnx") + "more"
        refused("onnx/model.onnx: longer")
        server.files["onnx/model.onnx"] = "short"
        refused("onnx/model.onnx: shorter")
        assertTrue("$told", told.first().startsWith("onnx/model.onnx: the server ended after 5 of"))
    }

    @Test
    fun `answers that end early are continued`() {
        server.shortens["onnx/model.onnx"] = 10
        download()
        complete()
        server.shortens["onnx/model.onnx"] = 1
        Store(root).remove("tiny")
        refused("does not send a file to its end")
    }

    @Test
    fun `looking at what is there already can be ended, too`() {
        server.breaks["z"] = ArrayDeque(listOf(1))
        refused("broken off")
        assertThrows(Cancelled::class.java) { download({ file, done, _ -> file != "onnx/model.onnx" || done == 0L }) }
        download()
        complete()
    }

    @Test
    fun `a manifest that was exchanged meanwhile counts`() {
        server.breaks["z"] = ArrayDeque(listOf(1))
        refused("broken off")
        server.files[Manifest.NAME] = Bundles.manifest("z" to "Z!")
        server.files["z"] = "Z!"
        download()
        complete()
        assertFalse(File(root, "tiny/onnx/model.onnx").exists())
    }

    @Test
    fun `a file may come where an earlier manifest had a folder, and a folder where it had a file`() {
        server.breaks["onnx/model.onnx"] = ArrayDeque(listOf(7))
        refused("broken off")
        for (files in listOf(arrayOf("onnx" to "a file", "z" to "z!"), arrayOf("onnx/deep/x" to "x", "z" to "z!"))) {
            server.files.clear()
            server.files.putAll(files)
            server.files[Manifest.NAME] = Bundles.manifest(*files)
            server.breaks["z"] = ArrayDeque(listOf(1))
            refused("broken off")
        }
        download()
        complete()
        assertEquals("x", File(root, "tiny/onnx/deep/x").readText())
    }

    @Test
    fun `files of an earlier try are held against their hashes`() {
        val folder = File(root, ".tiny.download").apply { mkdirs() }
        File(folder, "onnx").mkdirs()
        File(folder, "onnx/model.onnx").writeText("x".repeat(server.files.getValue("onnx/model.onnx").length))
        File(folder, "z").writeText("much longer than it")
        File(folder, "stranger").writeText("?")
        download()
        complete()
        assertEquals(listOf("onnx/model.onnx"), told.map { it.substringBefore(':') })
    }

    @Test
    fun `a manifest that is hostile, too large or another than was meant writes nothing`() {
        for (name in listOf("../x", "/x", "a/../../x", Manifest.NAME)) {
            server.files[Manifest.NAME] = Bundles.manifest(name to "hello")
            server.files[name] = "hello"
            assertThrows(Refusal::class.java) { download() }
        }
        assertEquals(emptyList<File>(), root.walk().filter { it.isFile }.toList())
        server.files[Manifest.NAME] = " ".repeat(Manifest.LIMIT + 1)
        refused("too large")
        server.files[Manifest.NAME] = Bundles.manifest(*FILES)
        refused("not the one that was meant", sha256 = sha256("another"))
        download(sha256 = sha256(Bundles.manifest(*FILES)))
    }

    @Test
    fun `names that one place would have to hold are refused before anything is fetched`() {
        for ((one, other) in listOf(
            "a/b" to "a", "x/A" to "x/a", "\u00e9" to "e\u0301", "Manifest.json" to "z",
            "A" to "a/b",
        )) {
            server.files[Manifest.NAME] = Bundles.manifest(one to "hello", other to "hello")
            refused("need one place")
        }
        assertEquals(emptyList<File>(), root.walk().filter { it.isFile }.toList())
    }

    @Test
    fun `a file that cannot be written is refused`() {
        server.meanwhile = ::blockFolder
        refused("model.onnx cannot be written")
    }

    /** Puts a file where the folder of the model is to be. */
    private fun blockFolder() {
        File(root, ".tiny.download/onnx").apply { parentFile!!.mkdirs() }.writeText("")
    }

    @Test
    fun `storage that runs full meanwhile is said as that`() {
        server.meanwhile = ::blockFolder
        val free = ArrayDeque(listOf(1L shl 40))
        val store = Store(root) { free.removeFirstOrNull() ?: 0 }
        val refusal = assertThrows(Refusal::class.java) { store.download("tiny", server, FakeServer.URL, watching) }
        assertEquals("the storage is full", refusal.what)
    }

    @Test
    fun `an address with a query is refused`() {
        for (url in listOf("https://example.org/a?b=c", "https://example.org/a#b")) {
            assertThrows(Refusal::class.java) { Store(root).download("tiny", server, url, watching) }
        }
        assertEquals(emptyList<Any>(), server.asked)
    }

    @Test
    fun `too little storage is said before anything is fetched`() {
        refused("too little storage", free = 64L shl 20)
        assertEquals(listOf(Manifest.NAME to 0L), server.asked)
    }

    @Test
    fun `a server that does not have it, or wants a login, is refused`() {
        for (status in listOf(401, 403, 500, 302)) {
            server.status["z"] = status
            refused("HTTP status $status")
        }
        server.files.remove(Manifest.NAME)
        refused("HTTP status 404")
    }

    private companion object {
        val FILES = arrayOf(
            "onnx/model.onnx" to "some words that stand for weights",
            "empty" to "",
            "z" to "z!",
        )
    }
}
