package dev.smolship.core.template

import java.math.BigInteger

private const val DEFAULT_PRECISION = 6
private const val REPR_PRECISION = 17

/** `[[fill]align][sign][z][#][0][width][grouping][.precision][type]` */
private class Spec(text: String) {
    var fill = " "
    var align = ' '
    var sign = '-'
    var alternate = false
    var zero = false
    var width = 0
    var grouping = ""
    var precision: Int? = null
    var type = ' '
    private val all = points(text).toList()
    private var at = 0

    init {
        if (all.size > 1 && all[1] in ALIGNS) {
            fill = all[0]
            align = all[1][0]
            at = 2
        } else if (all.isNotEmpty() && all[0] in ALIGNS) {
            align = all[0][0]
            at = 1
        }
        if (peek() in setOf("+", "-", " ")) sign = take()
        if (peek() == "z") unsupported("the format option z")
        if (peek() == "#") alternate = take() == '#'
        if (peek() == "0") {
            take()
            zero = true
            if (align == ' ') {
                align = '='
                fill = "0"
            }
        }
        width = number() ?: 0
        if (peek() == "," || peek() == "_") grouping = take().toString()
        if (peek() == ".") {
            take()
            precision = number() ?: refuse("Format specifier missing precision")
        }
        if (at == all.size - 1 && all[at].length == 1) type = take()
        if (at < all.size) refuse("Invalid format specifier '$text'")
    }

    private fun peek(): String = all.getOrElse(at) { "" }

    private fun take(): Char = all[at++][0]

    private fun number(): Int? {
        val start = at
        while (peek().length == 1 && peek()[0] in '0'..'9') at++
        if (start == at) return null
        return all.subList(start, at).joinToString("").toIntOrNull()
            ?: refuse("Too many decimal digits in format string")
    }

    private companion object {
        val ALIGNS = setOf("<", ">", "=", "^")
    }
}

/** Python's format of a value by a specification. */
internal fun formatValue(machine: Machine, value: Any?, text: String): String {
    if (text.isEmpty()) return machine.str(value)
    val spec = Spec(text)
    return when (value) {
        is String, is Markup -> formatText(machine, textOf(value)!!, spec)
        is Boolean, is BigInteger -> formatWhole(machine, wholeOf(value)!!, spec)
        is Double -> formatReal(machine, value, spec)
        else -> refuse("unsupported format string passed to ${typeName(value)}.__format__")
    }
}

private fun formatText(machine: Machine, text: String, spec: Spec): String {
    if (spec.type !in " s") refuse("Unknown format code '${spec.type}' for object of type 'str'")
    if (spec.sign != '-' || spec.alternate ||
        spec.grouping.isNotEmpty()
    ) {
        refuse("a format option is not allowed for strings")
    }
    if (spec.align == '=' && !spec.zero) refuse("'=' alignment not allowed in string format specifier")
    val precision = spec.precision
    val kept = if (precision != null && precision < pointCount(text)) cut(text, 0, precision) else text
    val side = if (spec.align == '>') {
        -1
    } else if (spec.align == '^') {
        0
    } else {
        1
    }
    return fillTo(machine, kept, spec, side)
}

private fun fillTo(machine: Machine, text: String, spec: Spec, side: Int): String {
    val missing = spec.width - pointCount(text)
    if (missing <= 0) return text
    machine.room(missing.toLong())
    val before = if (side == 0) {
        missing / 2
    } else if (side < 0) {
        missing
    } else {
        0
    }
    return spec.fill.repeat(before) + text + spec.fill.repeat(missing - before)
}

private fun formatWhole(machine: Machine, value: BigInteger, spec: Spec): String {
    if (spec.type in "eEfFgG%") return formatReal(machine, real(value), spec)
    if (spec.precision != null) refuse("Precision not allowed in integer format specifier")
    if (spec.type == 'c') {
        if (spec.sign != '-' || spec.alternate ||
            spec.grouping.isNotEmpty()
        ) {
            refuse("a format option is not allowed with 'c'")
        }
        return fillTo(
            machine, codePoint(value), spec,
            if (spec.align == '<' ||
                spec.align == ' '
            ) {
                1
            } else if (spec.align == '^') {
                0
            } else {
                -1
            },
        )
    }
    val radix =
        when (spec.type) {
            ' ', 'd', 'n' -> 10
            'x', 'X' -> 16
            'o' -> 8
            'b' -> 2
            else -> refuse("Unknown format code '${spec.type}' for object of type 'int'")
        }
    if (spec.grouping == "," && radix != 10) refuse("Cannot specify ',' with '${spec.type}'.")
    if (spec.grouping.isNotEmpty() && spec.type == 'n') refuse("Cannot specify '${spec.grouping}' with 'n'.")
    val magnitude = value.abs()
    val digits = if (radix == 10) digits(magnitude) else magnitude.toString(radix)
    val prefix = if (spec.alternate && radix != 10) "0${spec.type}" else ""
    val shown = if (spec.type == 'X') digits.uppercase(java.util.Locale.ROOT) else digits
    return numberTo(machine, value.signum() < 0, prefix, shown, "", spec, if (radix == 10) 3 else 4)
}

private fun formatReal(machine: Machine, value: Double, spec: Spec): String {
    val negative = value < 0 || (value == 0.0 && 1 / value < 0)
    val type = spec.type.lowercaseChar()
    val text =
        when (type) {
            'e', 'f', 'g' -> Decimals.write(machine, value, type, spec.precision ?: DEFAULT_PRECISION, spec.alternate)
            'n' -> Decimals.write(machine, value, 'g', spec.precision ?: DEFAULT_PRECISION, spec.alternate)
            '%' -> Decimals.write(machine, value * 100, 'f', spec.precision ?: DEFAULT_PRECISION, spec.alternate) + "%"
            ' ' -> withoutType(machine, value, spec)
            else -> refuse("Unknown format code '${spec.type}' for object of type 'float'")
        }
    val shown = if (spec.type in "EFG") text.uppercase(java.util.Locale.ROOT) else text
    val whole = shown.takeWhile { it in '0'..'9' }
    return numberTo(machine, negative, "", whole, shown.substring(whole.length), spec, 3)
}

/** Without a type a float is its repr, or as of type g with a digit after the point. */
private fun withoutType(machine: Machine, value: Double, spec: Spec): String {
    if (spec.alternate) unsupported("the format option # without a type")
    val precision = spec.precision ?: return reprOfDouble(Math.abs(value))
    if (!value.isFinite()) return reprOfDouble(Math.abs(value))
    val limit = maxOf(precision, 1)
    val text = Decimals.write(machine, value, 'g', limit, false)
    if ('e' in text || '.' in text) return text
    return if (text.length < limit + (if (limit >= REPR_PRECISION) 1 else 0)) {
        "$text.0"
    } else {
        general(machine, value, limit)
    }
}

/** A number that fills its precision is written with an exponent, since a digit follows the point. */
private fun general(machine: Machine, value: Double, precision: Int): String {
    val text = Decimals.write(machine, value, 'e', precision - 1, false)
    val (mantissa, exponent) = text.split('e')
    return (if ('.' in mantissa) mantissa.trimEnd('0').trimEnd('.') else mantissa) + "e" + exponent
}

private fun numberTo(
    machine: Machine,
    negative: Boolean,
    prefix: String,
    whole: String,
    rest: String,
    spec: Spec,
    group: Int,
): String {
    val sign = (
        if (negative) {
            "-"
        } else if (spec.sign == '-') {
            ""
        } else {
            spec.sign.toString()
        }
        ) + prefix
    var digits = whole
    val zeros = spec.fill == "0" && spec.align == '='
    if (spec.grouping.isNotEmpty() && whole.isNotEmpty()) {
        val least = if (zeros) spec.width - sign.length - rest.length else 0
        digits = grouped(machine, whole, spec.grouping, group, least)
    }
    val body = digits + rest
    return when (spec.align) {
        '=' -> sign + fillTo(machine, body, spec.also { it.width -= sign.length }, -1)
        '<' -> fillTo(machine, sign + body, spec, 1)
        '^' -> fillTo(machine, sign + body, spec, 0)
        else -> fillTo(machine, sign + body, spec, -1)
    }
}

/** Digits in groups, with zeros before them up to a width, which are grouped too. */
private fun grouped(machine: Machine, digits: String, separator: String, size: Int, least: Int): String {
    machine.room(maxOf(digits.length, least) * 2L)
    val found = StringBuilder()
    var count = 0
    for (i in digits.indices.reversed()) {
        if (count > 0 && count % size == 0) found.append(separator)
        found.append(digits[i])
        count++
    }
    while (found.length < least) {
        if (count % size == 0) {
            found.append(separator)
        }
        found.append('0')
        count++
    }
    return found.reverse().toString()
}
