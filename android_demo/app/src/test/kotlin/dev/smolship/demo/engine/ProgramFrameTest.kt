package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

class ProgramFrameTest {
    @get:Rule val folder = TemporaryFolder()

    private fun check(bytes: ByteArray) = checkFrame(File(folder.root, "model.pte").apply { writeBytes(bytes) })

    private fun frame(program: Long = 64, base: Long = 64, data: Long = 36, size: Int = 100) =
        ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).run {
            put(4, 'E'.code.toByte()).put(5, 'T'.code.toByte())
            "eh00".forEachIndexed { i, char -> put(8 + i, char.code.toByte()) }
            putLong(16, program).putLong(24, base).putLong(32, data).array()
        }

    @Test fun aProgramPasses() = check(frame())

    @Test fun otherFilesAreRefused() {
        val strange = listOf(
            ByteArray(0),
            ByteArray(39),
            ByteArray(100),
            frame().also { it[5] = 0 },
            frame().also { it[11] = '1'.code.toByte() },
            frame().copyOf(99),
            frame().copyOf(101),
            frame(program = 65),
            frame(program = -1, base = -1, data = 101),
            frame(base = 101, data = -1),
            frame(data = Long.MIN_VALUE),
        )
        for (bytes in strange) assertThrows(Refusal::class.java) { check(bytes) }
    }
}
