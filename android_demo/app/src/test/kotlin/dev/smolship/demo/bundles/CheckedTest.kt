package dev.smolship.demo.bundles

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.GenerationFacts
import dev.smolship.core.bundle.ListedFile
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.bundle.ModelFacts
import dev.smolship.core.bundle.Quantization
import dev.smolship.core.bundle.checkFiles
import dev.smolship.core.generate.Sampling
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.security.MessageDigest

class CheckedTest {
    @get:Rule val folder = TemporaryFolder()
    private val bundle by lazy { folder.newFolder("tiny") }
    private val memory by lazy { File(folder.root, "memory") }
    private val files = mapOf("tokenizer.json" to "{}", "onnx/model.onnx" to "weights", "gguf/model.gguf" to "others")

    private fun manifest() = Manifest(
        ModelFacts("example/tiny", null, "llama", 2, 8, 300, 1000),
        GenerationFacts(emptyList(), null, null, false, Sampling(), emptyMap(), null),
        64,
        Quantization("int4", 1.0, emptyList()),
        "digest",
        1,
        emptyMap(),
        files.mapValues { (_, text) -> ListedFile(text.length.toLong(), sha256(text)) },
    )

    private fun sha256(text: String) =
        MessageDigest.getInstance("SHA-256").digest(text.toByteArray()).joinToString("") { "%02x".format(it) }

    private fun check(checked: Checked = Checked(memory)) = checked.check(bundle, manifest(), "onnx")

    private fun alter(name: String, text: String, time: Long) = File(bundle, name).run {
        writeText(text)
        setLastModified(time)
    }

    @Before fun write() = files.forEach { (name, text) ->
        File(bundle, name).apply { parentFile!!.mkdirs() }
        alter(name, text, 1_000_000)
    }

    @Test fun anAlteredFileIsFoundAlsoAfterItWasGood() {
        check()
        check()
        alter("onnx/model.onnx", "Weights", 2_000_000)
        val refusal = assertThrows(Refusal::class.java) { check() }
        assertTrue(refusal.got!!.contains("onnx/model.onnx"))
        assertThrows(Refusal::class.java) { check() }
        alter("onnx/model.onnx", "weights", 3_000_000)
        check()
    }

    @Test fun theBundlesOwnFilesAreLookedAtToo() {
        alter("tokenizer.json", "[]", 2_000_000)
        assertThrows(Refusal::class.java) { check() }
    }

    @Test fun aMissingFileIsFound() {
        File(bundle, "onnx/model.onnx").delete()
        assertThrows(Refusal::class.java) { check() }
    }

    @Test fun otherTargetsDoNotMatter() {
        alter("gguf/model.gguf", "altered", 2_000_000)
        alter("gguf/strange", "unlisted", 2_000_000)
        check()
    }

    @Test fun whatIsNotListedIsFoundAlsoAfterAllWasGood() {
        check()
        alter("onnx/model.onnx.data", "unlisted", 2_000_000)
        val refusal = assertThrows(Refusal::class.java) { check() }
        assertTrue(refusal.got!!.contains("onnx/model.onnx.data"))
    }

    @Test fun aFileWhoseTimeWasSetBackIsFoundToo() {
        check()
        alter("onnx/model.onnx", "Weights", 1_000_000)
        assertThrows(Refusal::class.java) { check() }
        alter("onnx/model.onnx", "weights", 1_000_000)
        check()
        val other = File(bundle, "other").apply { writeText("Weights") }
        other.setLastModified(1_000_000)
        other.renameTo(File(bundle, "onnx/model.onnx"))
        assertThrows(Refusal::class.java) { check() }
    }

    @Test fun whatWasReadIsNotReadAgain() {
        var read = 0
        val checked = Checked(memory) { bundle, manifest -> checkFiles(bundle, manifest).also { read++ } }
        repeat(3) { check(checked) }
        assertEquals(1, read)
        memory.deleteRecursively()
        check(checked)
        assertEquals(2, read)
    }
}
