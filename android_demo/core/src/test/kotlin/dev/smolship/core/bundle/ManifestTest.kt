package dev.smolship.core.bundle

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import dev.smolship.core.Vectors
import dev.smolship.core.flag
import dev.smolship.core.ids
import dev.smolship.core.json.Json
import dev.smolship.core.json.write
import dev.smolship.core.wholeOrNull
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.file.Files

class ManifestTest {
    @get:Rule
    val temporary = TemporaryFolder()

    @Test
    fun `manifests are accepted and refused as Python does`() {
        val counts = HashMap<Boolean, Int>()
        Vectors.each("manifest") { case ->
            val root = temporary.newFolder()
            File(root, Manifest.NAME).writeBytes(content(case))
            val accepted = case.flag("accepted")
            counts.merge(accepted, 1, Int::plus)
            if (accepted) {
                val found = Manifest.read(root)
                check(case.need("read").objectOf("read"), found)
                if (!case.flag("brought")) assertThrows(Refusal::class.java) { found.bytesToWrite() }
            } else {
                assertThrows(Refusal::class.java) { Manifest.read(root) }
            }
            case["files"]?.let { checkProblems(case, it.objectOf("files"), root) }
        }
        assertTrue("$counts", counts.values.all { it > 20 })
    }

    private fun checkProblems(case: Json.Object, files: Json.Object, root: File) {
        for ((name, text) in files.fields) {
            File(root, name).apply { parentFile!!.mkdirs() }.writeText(text.text("text"))
        }
        val found = checkFiles(root, Manifest.read(root), case.need("below").text("below"))
        val expected = case.need("problems").objectOf("problems").fields.mapValues { it.value.text("problem") }
        assertEquals(expected, found.associate { it.file to it.fault.name.lowercase() })
    }

    private fun content(case: Json.Object): ByteArray {
        case["hex"]?.let { hex -> return hex.text("hex").chunked(2) { it.toString().toInt(16).toByte() }.toByteArray() }
        val given = case.need("manifest")
        return (if (given is Json.Text) given.value else given.write()).toByteArray()
    }

    private fun check(expected: Json.Object, found: Manifest) {
        val facts = found.generation
        assertEquals(expected.wholeOrNull("vocab"), found.model.vocab)
        assertEquals(expected.wholeOrNull("context"), found.context)
        assertEquals(expected.need("end_ids").ids().toList(), facts.ends.map { it.id })
        assertEquals(expected.wholeOrNull("bos"), facts.bos)
        assertEquals(expected.flag("adds_bos"), facts.addsBos)
        val special = expected.need("special_tokens").objectOf("special_tokens").fields
        assertEquals(special.mapValues { it.value.text("token") }, facts.specialTokens)
        val sampling = expected.need("sampling").objectOf("sampling")
        assertEquals(
            listOf("temperature", "top_p", "top_k", "min_p", "repetition_penalty").map { sampling.need(it).real(it) },
            facts.sampling.run { listOf(temperature, topP, topK.toDouble(), minP, repetitionPenalty) },
        )
        assertEquals((expected["template"] as? Json.Text)?.value, facts.template)
        val targets = expected.need("targets").objectOf("targets").fields.mapValues { (_, target) ->
            target.objectOf("target").let { it.need("engine").text("engine") to it.need("path").text("path") }
        }
        assertEquals(targets, found.targets.mapValues { (_, it) -> it.engine to "${it.folder}/${it.file}" })
        expected["bytes"]?.let { assertEquals(it.whole("bytes"), found.bytesToWrite()) }
    }

    @Test
    fun `a folder without a manifest is no bundle`() {
        val refusal = assertThrows(Refusal::class.java) { Manifest.read(temporary.newFolder()) }
        assertEquals("not a smolship bundle", refusal.what)
    }

    @Test
    fun `links do not lead out of the bundle`() {
        val root = Bundles.write(temporary.newFolder(), "a/x" to "hello")
        val elsewhere = temporary.newFolder()
        File(elsewhere, "x").writeText("hello")
        File(root, "a").deleteRecursively()
        Files.createSymbolicLink(File(root, "a").toPath(), elsewhere.toPath())
        val refusal = assertThrows(Refusal::class.java) { Manifest.read(root) }
        assertTrue(refusal.what, "through a link" in refusal.what)
    }

    @Test
    fun `an unlisted link is a problem, and not followed`() {
        val root = Bundles.write(temporary.newFolder(), "x" to "hello")
        Files.createSymbolicLink(File(root, "loop").toPath(), root.toPath())
        val problems = checkFiles(root, Manifest.read(root))
        assertEquals(listOf("loop" to Fault.UNLISTED), problems.map { it.file to it.fault })
    }

    @Test
    fun `checking tells how far it is, and can be ended`() {
        val root = Bundles.write(temporary.newFolder(), "x" to "hello", "y" to "world!")
        val seen = ArrayList<Pair<Long, Long>>()
        checkFiles(root, Manifest.read(root)) { _, done, total -> seen.add(done to total) }
        assertEquals(listOf(5L to 11L, 11L to 11L), seen)
        assertThrows(Cancelled::class.java) { checkFiles(root, Manifest.read(root)) { _, done, _ -> done < 11 } }
    }

    @Test
    fun `10,000 files are brought, and no more`() {
        val many = Array(10_000) { "$it" to "" }
        assertEquals(0, Manifest.read(Bundles.manifest(*many).toByteArray()).bytesToWrite())
        val more = Manifest.read(Bundles.manifest(*many, "x" to "").toByteArray())
        assertThrows(Refusal::class.java) { more.bytesToWrite() }
    }
}
