package dev.smolship.core.generate

/**
 * Text out of tokens' bytes, as far as it is complete: a character whose bytes are spread over tokens waits for its last
 * one. What is not UTF-8 becomes U+FFFD, one for each longest start of a character, as the Unicode standard recommends
 * and Python does.
 */
class TextStream {
    private var missing = 0 // bytes of the character that is begun
    private var code = 0
    private var low = LOW // what its next byte may be
    private var high = HIGH

    // Two bytes of half a surrogate pair: no character, but Python says so only when the third is there.
    private val surrogate get() = missing == 1 && code in 0x360..0x37f

    /** The text that [bytes] complete. */
    fun push(bytes: ByteArray): String {
        val out = StringBuilder()
        for (byte in bytes) {
            val value = byte.toInt() and 0xff
            if (missing > 0 && !surrogate && value in low..high) follow(value, out) else begin(value, out)
        }
        return out.toString()
    }

    /** What stands for a character that was begun and not ended. */
    fun finish(): String {
        val out = StringBuilder()
        abandon(out)
        return out.toString()
    }

    private fun follow(value: Int, out: StringBuilder) {
        low = LOW
        high = HIGH
        code = (code shl 6) or (value and 0x3f)
        if (--missing == 0) out.appendCodePoint(code)
    }

    private fun begin(value: Int, out: StringBuilder) {
        abandon(out)
        when (value) {
            in 0x00..0x7f -> out.append(value.toChar())
            in 0xc2..0xdf -> start(1, value and 0x1f)
            in 0xe0..0xef -> start(2, value and 0x0f)
            in 0xf0..0xf4 -> start(3, value and 0x07)
            else -> out.append(REPLACEMENT)
        }
        when (value) { // longer than needed, beyond U+10FFFF
            0xe0 -> low = 0xa0
            0xf0 -> low = 0x90
            0xf4 -> high = 0x8f
        }
    }

    private fun start(missing: Int, code: Int) {
        this.missing = missing
        this.code = code
    }

    private fun abandon(out: StringBuilder) {
        repeat(if (surrogate) 2 else minOf(missing, 1)) { out.append(REPLACEMENT) }
        missing = 0
        low = LOW
        high = HIGH
    }

    private companion object {
        const val LOW = 0x80
        const val HIGH = 0xbf
        const val REPLACEMENT = '\ufffd'
    }
}
