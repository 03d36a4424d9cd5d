package dev.smolship.core.template

import java.math.BigInteger
import java.math.RoundingMode

/** Python's `text % values`; of markup the values are escaped. */
internal fun Machine.percent(format: Any?, values: Any?): String =
    Percent(this, textOf(format)!!, format is Markup, values).run()

private class Percent(
    private val machine: Machine,
    private val format: String,
    private val escapes: Boolean,
    private val values: Any?,
) {
    private val out = StringBuilder()
    private val tuple = (values as? TupleValue)?.items
    private var next = 0
    private var at = 0

    /** Whether values are looked up by name: any value with elements may be left over, as in Python. */
    private val isMapping =
        values is DictValue || values is ListValue || values is RangeValue || values is Undefined

    fun run(): String {
        while (at < format.length) {
            val percent = format.indexOf('%', at).let { if (it < 0) format.length else it }
            add(format.substring(at, percent))
            at = percent + 1
            if (percent < format.length) directive()
        }
        val given = tuple?.size ?: 1
        if (next < given && !isMapping) refuse("not all arguments converted during string formatting")
        return out.toString()
    }

    private fun add(text: String) {
        machine.room(text.length.toLong())
        out.append(text)
    }

    private fun char(): Char = format.getOrNull(at) ?: refuse("incomplete format")

    private fun directive() {
        var value: Any? = Absent
        if (char() == '(') value = named()
        val flags = StringBuilder()
        while (char() in "-+ #0") {
            flags.append(char())
            at++
        }
        val width = number()
        if (width != null && width < 0) flags.append('-')
        var precision: Int? = null
        if (char() == '.') {
            at++
            precision = number() ?: 0
        }
        if (char() in "hlL") at++
        val type = char()
        at++
        if (type == '%') {
            add("%")
            return
        }
        if (value === Absent) value = argument()
        add(converted(type, value, flags.toString(), Math.abs(width ?: 0), precision))
    }

    private fun named(): Any? {
        val dict =
            values as? DictValue
                ?: if (isMapping) refuse("indices must be integers") else refuse("format requires a mapping")
        var depth = 1
        val start = ++at
        while (depth > 0) {
            depth += if (char() == '(') {
                1
            } else if (char() == ')') {
                -1
            } else {
                0
            }
            at++
        }
        val name = format.substring(start, at - 1)
        return (dict.find(name) ?: refuse("no '$name' for %($name)")).value
    }

    private fun number(): Int? {
        if (char() == '*') {
            at++
            return argument().let { if (it is BigInteger || it is Boolean) smallInt(it) else refuse("* wants int") }
        }
        val start = at
        while (char() in '0'..'9') at++
        if (at == start) return null
        return format.substring(start, at).toIntOrNull() ?: refuse("width or precision too big")
    }

    private fun argument(): Any? {
        if (tuple == null) {
            if (next++ > 0) refuse("not enough arguments for format string")
            return values
        }
        return if (next < tuple.size) tuple[next++] else refuse("not enough arguments for format string")
    }

    private fun converted(type: Char, value: Any?, flags: String, width: Int, precision: Int?): String = when (type) {
        's', 'r', 'a' -> {
            val text =
                when (type) {
                    's' -> if (escapes) escaped(machine, value).text else machine.str(value)
                    'r' -> machine.repr(value).let { if (escapes) escape(it) else it }
                    else -> machine.ascii(value).let { if (escapes) escape(it) else it }
                }
            plain(
                if (precision != null &&
                    precision < pointCount(text)
                ) {
                    cut(text, 0, precision)
                } else {
                    text
                },
                flags, width,
            )
        }
        'c' -> plain(character(value), flags, width)
        'd', 'i', 'u', 'x', 'X', 'o' -> whole(type, value, flags, width, precision)
        'e', 'E', 'f', 'F', 'g', 'G' -> real(type, value, flags, width, precision ?: 6)
        else -> refuse("unsupported format character '$type'")
    }

    private fun plain(text: String, flags: String, width: Int): String = padded(
        machine, text, width, " ",
        if ('-' in flags) {
            1
        } else {
            -1
        },
    )

    private fun character(value: Any?): String {
        val text = textOf(value)
        if (text != null) return if (pointCount(text) == 1) text else refuse("%c requires int or char")
        val point = wholeOf(value) ?: refuse("%c requires int or char, not ${typeName(value)}")
        return codePoint(point)
    }

    private fun whole(type: Char, value: Any?, flags: String, width: Int, precision: Int?): String {
        val number =
            wholeOf(value) ?: if (value is Double && type in "diu") {
                wholeOfDouble(value, RoundingMode.DOWN)
            } else {
                refuse("%$type format: a number is required, not ${typeName(value)}")
            }
        val magnitude = number.abs()
        var digits =
            when (type) {
                'x' -> magnitude.toString(16)
                'X' -> magnitude.toString(16).uppercase(java.util.Locale.ROOT)
                'o' -> magnitude.toString(8)
                else -> digits(magnitude)
            }
        if (precision != null) digits = padded(machine, digits, precision, "0", -1)
        val prefix = if ('#' in flags) mapOf('x' to "0x", 'X' to "0X", 'o' to "0o")[type] ?: "" else ""
        return signed(number.signum() < 0, prefix, digits, flags, width)
    }

    private fun real(type: Char, value: Any?, flags: String, width: Int, precision: Int): String {
        if (!isNumber(value)) refuse("must be real number, not ${typeName(value)}")
        val number = real(value)
        val lower = type.lowercaseChar()
        val text = Decimals.write(machine, number, lower, precision, '#' in flags)
        val negative = number < 0 || (number == 0.0 && 1 / number < 0)
        return signed(negative, "", if (type == lower) text else text.uppercase(java.util.Locale.ROOT), flags, width)
    }

    private fun signed(negative: Boolean, prefix: String, digits: String, flags: String, width: Int): String {
        val sign = (
            if (negative) {
                "-"
            } else if ('+' in flags) {
                "+"
            } else if (' ' in flags) {
                " "
            } else {
                ""
            }
            ) + prefix
        if ('-' in flags) return padded(machine, sign + digits, width, " ", 1)
        if ('0' in flags) return sign + padded(machine, digits, width - sign.length, "0", -1)
        return padded(machine, sign + digits, width, " ", -1)
    }
}

/** The character of a code point. */
internal fun codePoint(value: BigInteger): String {
    if (value.signum() < 0 ||
        value > BigInteger.valueOf(Character.MAX_CODE_POINT.toLong())
    ) {
        refuse("$value is no code point")
    }
    if (value.toInt() in 0xD800..0xDFFF) unsupported("half of a surrogate pair")
    return String(Character.toChars(value.toInt()))
}
