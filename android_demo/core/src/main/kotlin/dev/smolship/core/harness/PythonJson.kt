package dev.smolship.core.harness

import dev.smolship.core.json.Json
import dev.smolship.core.json.shortest

/**
 * JSON as Python's `json.dumps(value, sort_keys=True)` writes it, so that its SHA-256 is that of the host: in ASCII, keys
 * in the order of their code points. [compact]: without spaces between.
 */
internal fun pythonJson(value: Json, compact: Boolean): String {
    val out = StringBuilder()

    fun write(value: Json) {
        when (value) {
            Json.Null -> out.append("null")
            is Json.Bool -> out.append(value.value)
            is Json.Whole -> out.append(value.value)
            is Json.Real -> out.append(shortest(value.value))
            is Json.Text -> quote(value.value, out)
            is Json.Array -> {
                out.append('[')
                value.items.forEachIndexed { i, item ->
                    if (i > 0) out.append(if (compact) "," else ", ")
                    write(item)
                }
                out.append(']')
            }
            is Json.Object -> {
                out.append('{')
                value.fields.keys.sortedWith(::compareCodePoints).forEachIndexed { i, key ->
                    if (i > 0) out.append(if (compact) "," else ", ")
                    quote(key, out)
                    out.append(if (compact) ":" else ": ")
                    write(value.fields.getValue(key))
                }
                out.append('}')
            }
        }
    }
    write(value)
    return out.toString()
}

private fun quote(text: String, out: StringBuilder) {
    out.append('"')
    for (char in text) {
        when (char) {
            '"' -> out.append("\\\"")
            '\\' -> out.append("\\\\")
            '\n' -> out.append("\\n")
            '\r' -> out.append("\\r")
            '\t' -> out.append("\\t")
            '\b' -> out.append("\\b")
            '\u000c' -> out.append("\\f")
            in ' '..'~' -> out.append(char)
            else -> out.append("\\u%04x".format(char.code))
        }
    }
    out.append('"')
}

/** UTF-16 sorts surrogates, which stand for the highest code points, before U+E000 to U+FFFF. */
private fun compareCodePoints(a: String, b: String): Int {
    val i = a.indices.firstOrNull { it >= b.length || a[it] != b[it] } ?: return a.length - b.length
    if (i >= b.length) return 1
    if (a[i].isSurrogate() != b[i].isSurrogate()) return if (a[i].isSurrogate()) 1 else -1
    return a[i].compareTo(b[i])
}
