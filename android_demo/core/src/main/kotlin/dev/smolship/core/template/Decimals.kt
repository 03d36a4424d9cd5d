package dev.smolship.core.template

import java.math.BigDecimal
import java.math.BigInteger
import java.math.MathContext
import java.math.RoundingMode

private const val MOST_PRECISION = 1000

/** Digits of a finite magnitude, as C's printf and Python write them: exact, and rounded half to even once. */
internal object Decimals {
    /** The types e, f and g; [alternate] keeps the point and g's zeros. */
    fun write(machine: Machine, value: Double, type: Char, precision: Int, alternate: Boolean): String {
        if (precision > MOST_PRECISION) refuse("a number with $precision digits after the point is too long")
        val magnitude = Math.abs(value)
        val text =
            when {
                magnitude.isNaN() -> "nan"
                magnitude.isInfinite() -> "inf"
                type == 'e' -> scientific(BigDecimal(magnitude), precision, alternate)
                type == 'f' -> fixed(BigDecimal(magnitude), precision, alternate)
                else -> general(BigDecimal(magnitude), maxOf(precision, 1), alternate)
            }
        machine.room(text.length.toLong())
        return text
    }

    private fun fixed(value: BigDecimal, precision: Int, alternate: Boolean): String {
        val text = value.setScale(precision, RoundingMode.HALF_EVEN).toPlainString()
        return if (alternate && precision == 0) "$text." else text
    }

    private fun rounded(value: BigDecimal, digits: Int): BigDecimal =
        value.round(MathContext(digits, RoundingMode.HALF_EVEN))

    private fun exponent(value: BigDecimal): Int = if (value.signum() == 0) 0 else value.precision() - value.scale() - 1

    private fun scientific(value: BigDecimal, precision: Int, alternate: Boolean): String {
        val kept = rounded(value, precision + 1)
        val digits = (
            if (kept.signum() == 0) {
                "0"
            } else {
                kept.unscaledValue().toString()
            }
            ).padEnd(precision + 1, '0').take(precision + 1)
        return mantissa(digits, alternate) + suffix(exponent(kept))
    }

    private fun mantissa(digits: String, alternate: Boolean): String =
        digits.take(1) + (if (digits.length > 1 || alternate) "." else "") + digits.drop(1)

    private fun suffix(exponent: Int): String =
        "e" + (if (exponent < 0) "-" else "+") + Math.abs(exponent).toString().padStart(2, '0')

    private fun general(value: BigDecimal, precision: Int, alternate: Boolean): String {
        val kept = rounded(value, precision)
        val exponent = exponent(kept)
        if (exponent < -4 || exponent >= precision) {
            val digits = kept.unscaledValue().toString().padEnd(precision, '0').take(precision)
            return mantissa(if (alternate) digits else digits.trimEnd('0').ifEmpty { "0" }, alternate) +
                suffix(exponent)
        }
        val text = kept.setScale(maxOf(precision - 1 - exponent, 0), RoundingMode.HALF_EVEN).toPlainString()
        if (alternate) return if ('.' in text) text else "$text."
        return if ('.' in text) text.trimEnd('0').trimEnd('.') else text
    }
}

/** Python's round. */
internal fun round(value: Any?, digits: Int?): Any? {
    val whole = wholeOf(value)
    if (whole != null) {
        if (digits == null || digits >= 0) return whole
        if (-digits > MOST_PRECISION) return BigInteger.ZERO
        return BigDecimal(whole).setScale(digits, RoundingMode.HALF_EVEN).toBigInteger()
    }
    val real = value as? Double ?: refuse("type ${typeName(value)} doesn't define __round__ method")
    if (digits == null) return wholeOfDouble(real, RoundingMode.HALF_EVEN)
    if (!real.isFinite() || digits > MOST_PRECISION) return real
    if (digits < -MOST_PRECISION) return Math.copySign(0.0, real)
    val rounded = BigDecimal(real).setScale(digits, RoundingMode.HALF_EVEN).toDouble()
    if (rounded.isInfinite()) refuse("rounded value too large to represent")
    return if (rounded == 0.0) Math.copySign(0.0, real) else rounded
}

/** A double as a whole number; infinities and NaN are refused. */
internal fun wholeOfDouble(value: Double, mode: RoundingMode): BigInteger {
    if (value.isNaN()) refuse("cannot convert float NaN to integer")
    if (value.isInfinite()) refuse("cannot convert float infinity to integer")
    return BigDecimal(value).setScale(0, mode).toBigInteger()
}
