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
import java.io.IOException
import java.nio.file.Files

class StoreTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private lateinit var root: File
    private val files = hashMapOf("a/x" to "hello", "y" to "world")
    private val anything = Progress { _, _, _ -> true }

    @Before
    fun begin() {
        root = temporary.newFolder()
        files[Manifest.NAME] = Bundles.manifest("a/x" to "hello", "y" to "world")
    }

    private fun import(store: Store = Store(root), progress: Progress = anything): Manifest =
        store.import("tiny", { files[it]?.byteInputStream() }, progress)

    private fun refused(what: String, store: Store = Store(root)) {
        val refusal = assertThrows(Refusal::class.java) { import(store) }
        assertTrue("$refusal", what in refusal.message)
        assertEquals(emptyList<File>(), root.listFiles()!!.toList())
    }

    @Test
    fun `a bundle is copied, listed and removed`() {
        files["unlisted"] = "?"
        import()
        val found = Store(root).list().single()
        assertEquals("tiny", found.name)
        assertEquals(emptyList<Problem>(), checkFiles(found.folder, found.manifest!!))
        assertThrows(Refusal::class.java) { import() }
        Store(root).remove("tiny")
        assertEquals(0, root.list()!!.size)
        Store(root).remove("tiny")
    }

    @Test
    fun `what is altered, cut or missing is refused, and nothing stays`() {
        files["a/x"] = "hallo"
        refused("a/x: its SHA-256")
        files["a/x"] = "hell"
        refused("a/x: 4 of 5 bytes")
        files["a/x"] = "hello!"
        refused("a/x: longer")
        files.remove("a/x")
        refused("lacks a file")
        files[Manifest.NAME] = files.getValue(Manifest.NAME).dropLast(20)
        refused("not valid JSON")
        files.remove(Manifest.NAME)
        refused(Manifest.NAME)
    }

    @Test
    fun `a source that breaks, or a user who ends it, leaves nothing`() {
        val refusal = assertThrows(Refusal::class.java) {
            Store(root).import("tiny", {
                if (it == "y") {
                    throw IOException("gone")
                } else {
                    files[it]?.byteInputStream()
                }
            }, anything)
        }
        assertTrue("$refusal", "y: gone" in refusal.message)
        assertThrows(Cancelled::class.java) { import(progress = { _, done, _ -> done < 10 }) }
        assertEquals(0, root.list()!!.size)
    }

    @Test
    fun `too little storage is said before anything is copied`() = refused(
        "too little storage",
        Store(root) {
            1L shl 20
        },
    )

    @Test
    fun `names that are no names are refused`() {
        for (name in listOf("", ".", "..", "a/b", "../x", ".hidden", "a\nb", "a\u0000b", "x".repeat(201))) {
            assertThrows(Refusal::class.java) { Store(root).import(name, { files[it]?.byteInputStream() }, anything) }
            assertThrows(Refusal::class.java) { Store(root).remove(name) }
        }
    }

    @Test
    fun `removing does not follow links`() {
        val elsewhere = temporary.newFolder()
        File(elsewhere, "precious").writeText("!")
        import()
        Files.createSymbolicLink(File(root, "tiny/link").toPath(), elsewhere.toPath())
        Store(root).remove("tiny")
        assertTrue(File(elsewhere, "precious").exists())
        assertFalse(File(root, "tiny").exists())
    }

    @Test
    fun `a folder that is no bundle is listed with what is wrong`() {
        File(root, "folder").mkdirs()
        Bundles.write(File(root, "good").apply { mkdirs() }, "x" to "hello")
        assertEquals(
            listOf("folder" to "not a smolship bundle", "good" to null),
            Store(root).list().map { it.name to it.refusal?.what },
        )
    }

    @Test
    fun `leftovers of an ended app are cleaned, downloads stay`() {
        for (name in listOf(".a.importing", ".b.removed", ".c.download")) File(root, "$name/x").mkdirs()
        Store(root).clean()
        assertEquals(listOf(".c.download"), root.list()!!.toList())
        assertEquals(listOf("c"), Store(root).unfinished())
    }
}
