package dev.smolship.core.json

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

private const val HEX = 16
private const val HEX_DIGITS = 4

/** The text of UTF-8 bytes; malformed bytes are refused, not replaced. */
internal fun utf8(bytes: ByteArray): String {
    val decoder =
        Charsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
    try {
        return decoder.decode(ByteBuffer.wrap(bytes)).toString()
    } catch (error: CharacterCodingException) {
        throw JsonError("the file is not UTF-8 ($error)")
    }
}

/** Whether the surrogates of a text stand in pairs. */
internal fun wellFormed(text: CharSequence): Boolean {
    var i = 0
    while (i < text.length) {
        val paired = text[i].isHighSurrogate() && i + 1 < text.length && text[i + 1].isLowSurrogate()
        if (text[i].isSurrogate() && !paired) return false
        i += if (paired) 2 else 1
    }
    return true
}

/** A reader of JSON (RFC 8259) that refuses duplicate keys, lone surrogates and anything after the value. */
internal class JsonReader(private val text: String, private val limits: JsonLimits) {
    private var at = 0

    fun document(): Json {
        if (text.length > limits.size) {
            throw JsonError("JSON of ${text.length} characters, at most ${limits.size} are read")
        }
        val found = value(limits.depth)
        space()
        if (at < text.length) fail("the end")
        return found
    }

    private fun fail(expected: String): Nothing {
        val got = if (at < text.length) "'${text[at]}'" else "the end"
        val line = text.substring(0, minOf(at, text.length)).count { it == '\n' } + 1
        throw JsonError("JSON, line $line, character $at: got $got, expected $expected")
    }

    private fun space() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun take(char: Char): Boolean {
        space()
        if (at < text.length && text[at] == char) {
            at++
            return true
        }
        return false
    }

    private fun value(depth: Int): Json {
        if (depth == 0) throw JsonError("JSON nested deeper than ${limits.depth} levels")
        space()
        return when (text.getOrNull(at)) {
            '{' -> members(depth - 1)
            '[' -> elements(depth - 1)
            '"' -> Json.Text(string())
            't' -> word("true", Json.Bool(true))
            'f' -> word("false", Json.Bool(false))
            'n' -> word("null", Json.Null)
            '-', in '0'..'9' -> number()
            else -> fail("a value")
        }
    }

    private fun word(word: String, value: Json): Json {
        if (!text.startsWith(word, at)) fail(word)
        at += word.length
        return value
    }

    private fun members(depth: Int): Json {
        val fields = LinkedHashMap<String, Json>()
        at++
        if (take('}')) return Json.Object(fields)
        do {
            space()
            if (text.getOrNull(at) != '"') fail("a key")
            val key = string()
            if (!take(':')) fail("':'")
            if (key in fields) throw JsonError("JSON: the key \"${key.take(80)}\" stands twice in one object")
            fields[key] = value(depth)
        } while (take(','))
        if (!take('}')) fail("',' or '}'")
        return Json.Object(fields)
    }

    private fun elements(depth: Int): Json {
        val items = ArrayList<Json>()
        at++
        if (take(']')) return Json.Array(items)
        do items.add(value(depth)) while (take(','))
        if (!take(']')) fail("',' or ']'")
        return Json.Array(items)
    }

    private fun string(): String {
        val found = StringBuilder()
        at++
        while (true) {
            val char = text.getOrNull(at) ?: fail("'\"'")
            if (char == '"') break
            if (char < ' ') fail("an escaped control character")
            if (char == '\\') {
                found.append(escape())
            } else {
                found.append(char)
                at++
            }
        }
        at++
        if (!wellFormed(found)) fail("no half of a surrogate pair in the string before")
        return found.toString()
    }

    private fun escape(): Char {
        val char = text.getOrNull(at + 1)
        if (char == 'u') {
            val end = at + 2 + HEX_DIGITS
            val digits = if (end <= text.length) text.substring(at + 2, end) else fail("four hexadecimal digits")
            if (!digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) fail("four hexadecimal digits")
            at = end
            return digits.toInt(HEX).toChar()
        }
        val index = if (char == null) -1 else "\"\\/bfnrt".indexOf(char)
        if (index < 0) fail("an escape")
        at += 2
        return "\"\\/\b\u000c\n\r\t"[index]
    }

    private fun digits() {
        val start = at
        while (at < text.length && text[at] in '0'..'9') at++
        if (at == start) fail("a digit")
    }

    private fun number(): Json {
        val start = at
        if (text[at] == '-') at++
        if (text.getOrNull(at) == '0') at++ else digits()
        val whole = at
        if (text.getOrNull(at) == '.') {
            at++
            digits()
        }
        if (text.getOrNull(at) == 'e' || text.getOrNull(at) == 'E') {
            at++
            if (text.getOrNull(at) == '+' || text.getOrNull(at) == '-') at++
            digits()
        }
        if (at - start > limits.digits) throw JsonError("JSON: a number of more than ${limits.digits} characters")
        val written = text.substring(start, at)
        if (at == whole) return Json.Whole(written.toBigInteger())
        val value = written.toDouble()
        if (value.isInfinite()) throw JsonError("JSON: the number $written is beyond a double's range")
        return Json.Real(value)
    }
}
