package dev.smolship.core.harness

import dev.smolship.core.Refusal
import dev.smolship.core.json.Json
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class MachineTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private fun info(file: String) = Json.Object("file" to Json.Text(file))

    @Test
    fun `memory is that of smaps_rollup where there is one`() {
        val proc = temporary.root
        File(proc, "status").writeText(STATUS)
        assertEquals(Memory(3 shl 10, (4 + 1).toLong() shl 10, 90L shl 10), Memory.read(proc))
        File(proc, "smaps_rollup").writeText("00-ff ---p 00000000 00:00 0 [rollup]\nRss:  100 kB\nAnonymous:   60 kB\n")
        assertEquals(Memory(60L shl 10, 40L shl 10, 90L shl 10), Memory.read(proc))
    }

    @Test
    fun `what the system does not say is null`() {
        assertEquals(Memory(null, null, null), Memory.read(File(temporary.root, "nothing")))
        File(temporary.root, "status").writeText("Name: x\nVmHWM: 5 MB\n")
        assertEquals(Memory(null, null, null), Memory.read(temporary.root))
    }

    @Test
    fun `an artifact is its file and those that its name begins`() {
        val root = temporary.root
        File(root, "model.onnx").writeText("a")
        File(root, "model.onnx.data").writeText("b")
        File(root, "other").writeText("c")
        // smolship.runtime.artifact.artifact_digest of the same folder
        val digest = "f6983c409be801c9e75edb095ad9c09f03f2d4006fab71099889bf891ff033ae"
        assertEquals(digest, artifactDigest(root, info("model.onnx")))
        File(root, "model.onnx.data").writeText("B")
        assertNotEquals(digest, artifactDigest(root, info("model.onnx")))
    }

    @Test
    fun `an artifact that is a folder is all in it`() {
        val root = temporary.root
        File(root, "m.mlpackage/Data").mkdirs()
        File(root, "m.mlpackage/Data/weight.bin").writeText("a")
        File(root, "m.mlpackage/é").writeText("b")
        val digest = "0781da44732bdfdbb461ac89a2cab3a0fa6f7d0b631ec744ca6e5bda188092d6"
        assertEquals(digest, artifactDigest(root, info("m.mlpackage")))
    }

    @Test
    fun `an artifact that is not there, or elsewhere, is refused`() {
        for (file in listOf("nothing", "../x", "/etc/passwd", "")) {
            assertThrows(Refusal::class.java) { artifactDigest(temporary.root, info(file)) }
        }
        assertThrows(Refusal::class.java) { artifactDigest(temporary.root, Json.Object()) }
    }

    private companion object {
        const val STATUS = "Name:\tx\nVmHWM:\t      90 kB\nRssAnon:\t 3 kB\nRssFile:\t 4 kB\nRssShmem:\t 1 kB\n"
    }
}
