package dev.smolship.core.template

import java.math.BigInteger
import java.math.RoundingMode

internal val NUMBER_FILTERS =
    filters(
        native("abs", "x /") { a -> absolute(a.value(0)) },
        native("int", "value default? base?", ::toInt),
        native("float", "value default?") { a ->
            val value = a.value(0)
            if (value is Undefined) refuse(value.message)
            if (isNumber(value)) real(value) else textOf(value)?.let { parseFloat(it) } ?: a.value(1, 0.0)
        },
        native("round", "value precision? method?", ::roundFilter),
        native("filesizeformat", "value binary?", ::fileSize),
        native("sum", "iterable attribute? start?") { a ->
            val getter = Getter(a.machine, a.value(1))
            val start = a.value(2, BigInteger.ZERO)
            if (textOf(start) != null) refuse("sum() can't sum strings")
            a.machine.each(a.value(0)).asSequence().fold(start) { sum, item ->
                a.machine.binary("+", sum, getter(item))
            }
        },
    )

private fun absolute(value: Any?): Any = wholeOf(value)?.abs() ?: (value as? Double)?.let { Math.abs(it) }
    ?: refuse("bad operand type for abs(): '${typeName(value)}'")

/** The digits of a text, underscores between them left out; null where they do not stand right. */
private fun withoutUnderscores(text: String): String? {
    for (i in text.indices) {
        if (text[i] == '_' && !(text.getOrNull(i - 1).isDigitLike() && text.getOrNull(i + 1).isDigitLike())) return null
    }
    return text.replace("_", "")
}

private fun Char?.isDigitLike(): Boolean = this != null && Character.isLetterOrDigit(this)

/** The ASCII form of decimal digits of any script. */
private fun asciiDigits(text: String): String = points(text).joinToString("") {
    val point = it.codePointAt(0)
    if (Character.isDigit(point)) Character.digit(point, 10).toString() else it
}

private const val MOST_DIGITS = 4300
private val PREFIXES = mapOf(2 to "0b", 8 to "0o", 16 to "0x")

/** Python's int of a text; null where it raises ValueError. */
internal fun parseInt(text: String, base: BigInteger): BigInteger? {
    val radix = if (base.bitLength() < Int.SIZE_BITS) base.toInt() else return null
    if (radix != 0 && radix !in Character.MIN_RADIX..Character.MAX_RADIX) return null
    val trimmed = asciiDigits(strip(text, null))
    val negative = trimmed.startsWith("-")
    var digits = if (negative || trimmed.startsWith("+")) trimmed.substring(1) else trimmed
    var used = radix
    for ((each, prefix) in PREFIXES) {
        if ((radix == 0 || radix == each) && digits.startsWith(prefix, ignoreCase = true)) {
            digits = digits.substring(2).removePrefix("_")
            used = each
            break
        }
    }
    if (used == 0) {
        if (digits.startsWith("0") && digits.any { it !in "0_" }) return null
        used = 10
    }
    digits = withoutUnderscores(digits) ?: return null
    if (digits.isEmpty() || digits.any { Character.digit(it, used) < 0 || it.code >= 0x80 }) return null
    if (digits.length > MOST_DIGITS) {
        if (used.countOneBits() == 1) unsupported("a number of more than $MOST_DIGITS digits")
        return null
    }
    return BigInteger(digits, used).let { if (negative) it.negate() else it }
}

private val FLOAT = Regex("[+-]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?")

/** Python's float of a text; null where it raises ValueError. */
internal fun parseFloat(text: String): Double? {
    val trimmed = withoutUnderscores(asciiDigits(strip(text, null))) ?: return null
    if (FLOAT.matches(trimmed)) return trimmed.toDouble()
    val sign = if (trimmed.startsWith("-")) -1.0 else 1.0
    return when (
        trimmed.removePrefix("-").let {
            if (trimmed.startsWith("+")) trimmed.substring(1) else it
        }.lowercase(java.util.Locale.ROOT)
    ) {
        "inf", "infinity" -> sign * Double.POSITIVE_INFINITY
        "nan" -> Double.NaN
        else -> null
    }
}

private fun toInt(a: Bound): Any? {
    val default = a.value(1, BigInteger.ZERO)
    val value = a.value(0)
    if (value is Undefined) refuse(value.message)
    wholeOf(value)?.let { return it }
    if (value is Double) return if (value.isNaN()) default else wholeOfDouble(value, RoundingMode.DOWN)
    val text = textOf(value) ?: return default
    wholeOf(a.value(2, BigInteger.TEN))?.let { base -> parseInt(text, base)?.let { return it } }
    val real = parseFloat(text)
    return if (real == null || !real.isFinite()) default else wholeOfDouble(real, RoundingMode.DOWN)
}

private fun roundFilter(a: Bound): Any? {
    val method = a.value(2, "common")
    val value = a.value(0)
    if (value is Undefined) refuse(value.message)
    val mode =
        when (textOf(method)) {
            "common" -> return round(value, if (a.has(1) && a.value(1) == null) null else a.int(1, 0))
            "ceil" -> RoundingMode.CEILING
            "floor" -> RoundingMode.FLOOR
            else -> refuse("method must be common, ceil or floor")
        }
    val scale = a.machine.binary("**", BigInteger.TEN, a.value(1, BigInteger.ZERO))
    val scaled = a.machine.binary("*", value, scale)
    if (!isNumber(scaled)) refuse("must be real number, not ${typeName(scaled)}")
    return a.machine.binary("/", wholeOf(scaled) ?: wholeOfDouble(scaled as Double, mode), scale)
}

private fun fileSize(a: Bound): String {
    val value = a.value(0)
    if (value is Undefined) refuse(value.message)
    val bytes = if (isNumber(value)) {
        real(value)
    } else {
        textOf(value)?.let { parseFloat(it) }
            ?: refuse("could not convert to float")
    }
    val binary = a.flag(1)
    val base = if (binary) 1024.0 else 1000.0
    if (bytes == 1.0) return "1 Byte"
    if (bytes < base) return "${wholeOfDouble(bytes, RoundingMode.DOWN)} Bytes"
    var unit = base
    for (letter in (if (binary) "KMGTPEZY" else "kMGTPEZY")) {
        unit *= base
        if (bytes < unit || letter == 'Y') {
            return Decimals.write(a.machine, base * bytes / unit, 'f', 1, false) + " $letter" +
                (if (binary) "iB" else "B")
        }
    }
    return ""
}
