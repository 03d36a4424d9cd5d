package dev.smolship.core.generate

import dev.smolship.core.Vectors
import org.junit.Assert.assertEquals
import org.junit.Test

class TextStreamTest {
    @Test
    fun `pieces of text come as soon as their characters are complete`() = Vectors.each("stream") { case ->
        val stream = TextStream()
        val tokens = case.need("tokens").items("tokens").map { bytes(it.text("token")) }
        val pieces = case.need("pieces").items("pieces").map { it.text("piece") }
        assertEquals(pieces, tokens.map(stream::push))
        assertEquals(case.need("rest").text("rest"), stream.finish())
    }

    private fun bytes(hex: String) = hex.chunked(2) { it.toString().toInt(16).toByte() }.toByteArray()
}
