package dev.smolship.core.template

import java.math.BigDecimal
import java.math.BigInteger
import java.math.MathContext
import java.math.RoundingMode

private const val MOST_BITS = 1L shl 16
private const val EXACT_BITS = 53
private const val QUOTIENT_DIGITS = 60
private const val MOST_EXACT_POWER = 1024

/** Python's + - * / // % ** of two values. */
internal fun Machine.binary(op: String, left: Any?, right: Any?): Any? {
    scan(textOf(left)?.length ?: 0)
    if (left is Undefined) refuse(left.message)
    if (op == "%" && textOf(left) != null) return like(left, percent(left, right))
    if (right is Undefined) refuse(right.message)
    val a = wholeOf(left)
    val b = wholeOf(right)
    if (a != null && b != null) return wholes(op, a, b)
    if (isNumber(left) && isNumber(right)) return reals(op, real(left), real(right))
    val made =
        when (op) {
            "+" -> joined(left, right)
            "*" -> if (b != null) {
                repeated(left, b)
            } else if (a != null) {
                repeated(right, a)
            } else {
                null
            }
            else -> null
        }
    return made ?: refuse("unsupported operand type(s) for $op: '${typeName(left)}' and '${typeName(right)}'")
}

internal fun Machine.unary(op: String, value: Any?): Any? {
    step()
    if (value is Undefined) refuse(value.message)
    val whole = wholeOf(value)
    return when {
        whole != null -> if (op == "-") whole.negate() else whole
        value is Double -> if (op == "-") -value else value
        else -> refuse("bad operand type for unary $op: '${typeName(value)}'")
    }
}

/** A number as a double; a whole number beyond its range is refused. */
internal fun real(value: Any?): Double {
    if (value is Double) return value
    val found = wholeOf(value)!!.toDouble()
    if (found.isInfinite()) refuse("int too large to convert to float")
    return found
}

private fun Machine.joined(left: Any?, right: Any?): Any? {
    val text = textOf(left)
    val other = textOf(right)
    if (text != null && other != null) {
        val markup = left is Markup || right is Markup
        val first = if (markup && left !is Markup) escape(text) else text
        val second = if (markup && right !is Markup) escape(other) else other
        room(first.length.toLong() + second.length)
        return if (markup) Markup(first + second) else first + second
    }
    val items = itemsOf(left)
    val others = itemsOf(right)
    if (items == null || others == null || (left is ListValue) != (right is ListValue)) return null
    roomForItems(items.size.toLong() + others.size)
    return if (left is ListValue) ListValue(items + others) else TupleValue(items + others)
}

private fun Machine.repeated(value: Any?, count: BigInteger): Any? {
    val text = textOf(value)
    val items = itemsOf(value)
    val size = text?.length ?: items?.size ?: return null
    if (count.bitLength() >= Long.SIZE_BITS) refuse("cannot fit 'int' into an index-sized integer")
    if (count.signum() <= 0 || size == 0) {
        return if (text != null) {
            like(value, "")
        } else if (value is ListValue) {
            ListValue(emptyList())
        } else {
            TupleValue(emptyList())
        }
    }
    val times = if (count.bitLength() < Int.SIZE_BITS) {
        count.toInt()
    } else {
        refuse("a value repeated $count times is too long")
    }
    if (text != null) {
        room(size.toLong() * times)
        return like(value, text.repeat(times))
    }
    roomForItems(size.toLong() * times)
    val repeated = ArrayList<Any?>(size * times)
    repeat(times) { repeated.addAll(items!!) }
    return if (value is ListValue) ListValue(repeated) else TupleValue(repeated)
}

private fun Machine.bits(count: Long) {
    if (count > MOST_BITS) refuse("a number of more than $MOST_BITS bits")
    step(count / Byte.SIZE_BITS)
}

private fun Machine.wholes(op: String, a: BigInteger, b: BigInteger): Any? {
    if (op in "/%//" && b.signum() == 0) refuse("division by zero")
    bits(a.bitLength().toLong() + b.bitLength())
    return when (op) {
        "+" -> a + b
        "-" -> a - b
        "*" -> a * b
        "/" -> divided(a, b)
        "//" -> floorDivide(a, b)
        "%" -> a - b * floorDivide(a, b)
        else -> power(a, b)
    }
}

internal fun floorDivide(a: BigInteger, b: BigInteger): BigInteger {
    val (quotient, rest) = a.divideAndRemainder(b)
    return if (rest.signum() != 0 && rest.signum() != b.signum()) quotient - BigInteger.ONE else quotient
}

private fun divided(a: BigInteger, b: BigInteger): Double {
    if (a.bitLength() <= EXACT_BITS && b.bitLength() <= EXACT_BITS) return a.toDouble() / b.toDouble()
    val context = MathContext(QUOTIENT_DIGITS, RoundingMode.HALF_EVEN)
    val found = BigDecimal(a).divide(BigDecimal(b), context).toDouble()
    if (found.isInfinite()) refuse("integer division result too large for a float")
    return if (a.signum() == 0) 0.0 else found
}

private fun Machine.power(a: BigInteger, b: BigInteger): Any? {
    if (b.signum() < 0) return reals("**", real(a), real(b))
    if (a.bitLength() <= 1 && a.abs() <= BigInteger.ONE) { // 0, 1 and -1, to any power
        return if (b.signum() == 0 || (a.signum() < 0 && !b.testBit(0))) BigInteger.ONE else a
    }
    if (b.bitLength() > Int.SIZE_BITS - 1) refuse("a power of $b is too large")
    bits(a.abs().bitLength().toLong() * b.toInt())
    return a.pow(b.toInt())
}

private fun reals(op: String, x: Double, y: Double): Double {
    if (op in "/%//" && y == 0.0) refuse("float division by zero")
    return when (op) {
        "+" -> x + y
        "-" -> x - y
        "*" -> x * y
        "/" -> x / y
        "//" -> floorDivide(x, y)
        "%" -> modulo(x, y)
        else -> power(x, y)
    }
}

private fun modulo(x: Double, y: Double): Double {
    val rest = x % y
    return if (rest == 0.0) {
        Math.copySign(0.0, y)
    } else if ((y < 0) != (rest < 0)) {
        rest + y
    } else {
        rest
    }
}

private fun floorDivide(x: Double, y: Double): Double {
    val rest = x % y
    var quotient = (x - rest) / y
    if (rest != 0.0 && (y < 0) != (rest < 0)) quotient -= 1.0
    if (quotient == 0.0) return Math.copySign(0.0, x / y)
    val floor = Math.floor(quotient)
    return if (quotient - floor > 0.5) floor + 1.0 else floor
}

/** Powers that are exact before their one rounding, so that they do not depend on a library's last bit. */
private fun power(x: Double, y: Double): Double {
    if (y == 0.0 || x == 1.0) return 1.0
    if (x == 0.0 && y < 0) refuse("0.0 cannot be raised to a negative power")
    if (!x.isFinite() || !y.isFinite() || x == 0.0) {
        return if (x == -1.0 && y.isInfinite()) 1.0 else Math.pow(x, y)
    }
    if (y != Math.rint(y)) {
        if (x < 0) unsupported("a complex number")
        return when (y) {
            0.5 -> Math.sqrt(x)
            -0.5 -> BigDecimal.ONE.divide(BigDecimal(Math.sqrt(x)), MathContext(QUOTIENT_DIGITS)).toDouble()
            else -> unsupported("a power with a fraction")
        }
    }
    if (Math.abs(y) > MOST_EXACT_POWER) unsupported("a float's power beyond $MOST_EXACT_POWER")
    val context = MathContext(QUOTIENT_DIGITS, RoundingMode.HALF_EVEN)
    val found = BigDecimal(x).pow(y.toInt(), context).toDouble()
    if (found.isInfinite()) refuse("numerical result out of range")
    return found
}
