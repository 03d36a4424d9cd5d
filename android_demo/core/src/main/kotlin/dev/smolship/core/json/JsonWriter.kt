package dev.smolship.core.json

import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode

/** JSON text of a value, on one line, or indented by [indent] spaces a level. */
fun Json.write(indent: Int? = null): String = StringBuilder().also { JsonWriter(it, indent).write(this, 1) }.toString()

private class JsonWriter(private val out: StringBuilder, private val indent: Int?) {
    fun write(value: Json, level: Int) {
        when (value) {
            Json.Null -> out.append("null")
            is Json.Bool -> out.append(value.value)
            is Json.Whole -> out.append(value.value)
            is Json.Real -> out.append(real(value.value))
            is Json.Text -> quote(value.value)
            is Json.Array -> list('[', ']', value.items, level) { write(it, level + 1) }
            is Json.Object ->
                list('{', '}', value.fields.entries, level) { (key, field) ->
                    quote(key)
                    out.append(": ")
                    write(field, level + 1)
                }
        }
    }

    private fun <T> list(open: Char, close: Char, items: Collection<T>, level: Int, each: (T) -> Unit) {
        out.append(open)
        items.forEachIndexed { i, item ->
            if (i > 0) out.append(if (indent == null) ", " else ",")
            line(level)
            each(item)
        }
        if (items.isNotEmpty()) line(level - 1)
        out.append(close)
    }

    private fun line(level: Int) {
        if (indent != null) out.append('\n').append(" ".repeat(indent * level))
    }

    private fun real(value: Double): String {
        if (!value.isFinite()) throw JsonError("JSON has no number $value")
        return shortest(value)
    }

    private fun quote(text: String) {
        if (!wellFormed(text)) throw JsonError("half of a surrogate pair in a string cannot be written as UTF-8")
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
                else -> if (char < ' ') escape(char) else out.append(char)
            }
        }
        out.append('"')
    }

    private fun escape(char: Char) {
        out.append("\\u").append(char.code.toString(16).padStart(4, '0'))
    }
}

private const val MOST_DIGITS = 17
private const val FIRST_EXPONENT = -4
private const val LAST_EXPONENT = 16

/**
 * The shortest decimal text that reads back as the same finite double, spelled as Python's repr: `1.0`, `1e+16`,
 * `-0.0`. The platform's own is not the shortest everywhere.
 */
fun shortest(value: Double): String {
    val sign = if (value < 0 || 1 / value < 0) "-" else ""
    if (value == 0.0) return "${sign}0.0"
    val exact = BigDecimal(Math.abs(value))
    var rounded = exact
    // Below a power of two the doubles lie closer together than above it: there the nearest decimal may read back as
    // another double while the next one upwards reads back as this one.
    search@ for (precision in 1..MOST_DIGITS) {
        for (mode in listOf(RoundingMode.HALF_EVEN, RoundingMode.UP)) {
            rounded = exact.round(MathContext(precision, mode))
            if (rounded.toString().toDouble() == Math.abs(value)) break@search
        }
    }
    val digits = rounded.unscaledValue().toString().trimEnd('0')
    val point = rounded.precision() - rounded.scale() // the value is 0.digits * 10^point
    val exponent = point - 1
    if (exponent !in FIRST_EXPONENT until LAST_EXPONENT) {
        val fraction = if (digits.length > 1) "." + digits.drop(1) else ""
        val size = Math.abs(exponent).toString().padStart(2, '0')
        return "$sign${digits[0]}${fraction}e${if (exponent < 0) "-" else "+"}$size"
    }
    if (point <= 0) return "${sign}0." + "0".repeat(-point) + digits
    if (point >= digits.length) return sign + digits + "0".repeat(point - digits.length) + ".0"
    return sign + digits.take(point) + "." + digits.drop(point)
}
