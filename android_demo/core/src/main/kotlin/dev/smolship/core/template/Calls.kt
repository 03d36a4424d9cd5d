package dev.smolship.core.template

import java.math.BigInteger

/**
 * The parameters of a function of Python's: `"sep? maxsplit?"`. A name with `?` may be left out; a last `/` says that
 * arguments are given by position alone.
 */
internal class Signature(private val function: String, parameters: String) {
    private val byPosition = parameters.endsWith("/")
    private val names = parameters.removeSuffix("/").split(' ').filter { it.isNotEmpty() }
    private val plain = names.map { it.removeSuffix("?") }

    fun bind(machine: Machine, arguments: Arguments): Bound {
        val values = arrayOfNulls<Any?>(names.size)
        values.fill(Absent)
        if (arguments.positional.size > names.size) {
            refuse("$function() takes at most ${names.size} arguments (${arguments.positional.size} given)")
        }
        arguments.positional.forEachIndexed { i, value -> values[i] = value }
        for ((name, value) in arguments.named) {
            val i = if (byPosition) -1 else plain.indexOf(name)
            if (i < 0) refuse("$function() got an unexpected keyword argument '$name'")
            if (values[i] !== Absent) refuse("$function() got multiple values for argument '$name'")
            values[i] = value
        }
        for (i in names.indices) {
            val optional = names[i].endsWith("?")
            if (values[i] === Absent && !optional) refuse("$function() is missing the argument '${names[i]}'")
        }
        return Bound(machine, function, values)
    }
}

/** Arguments in the order of their parameters. */
internal class Bound(val machine: Machine, private val function: String, private val values: Array<Any?>) {
    fun has(i: Int): Boolean = values[i] !== Absent

    /** The argument; [default] where it was left out. */
    fun value(i: Int, default: Any? = null): Any? = if (has(i)) values[i] else default

    fun text(i: Int, default: String? = null): String {
        if (!has(i) && default != null) return default
        return textOf(values[i]) ?: wrong(i, "str")
    }

    /** A string; null for None or where it was left out. */
    fun textOrNone(i: Int): String? = if (value(i) == null) null else text(i)

    fun flag(i: Int, default: Boolean = false): Boolean = if (has(i)) truth(values[i]) else default

    fun int(i: Int, default: Int? = null): Int {
        if (!has(i) && default != null) return default
        return smallInt(values[i]) ?: wrong(i, "int")
    }

    private fun wrong(i: Int, expected: String): Nothing {
        if (values[i] is Undefined) refuse((values[i] as Undefined).message)
        refuse("$function() argument ${i + 1} must be $expected, not ${typeName(values[i])}")
    }
}

/** A whole number of 32 bits; null for what is no whole number. */
internal fun smallInt(value: Any?): Int? {
    val found = wholeOf(value) ?: return null
    if (found.bitLength() >= Int.SIZE_BITS) refuse("the number $found is too large here")
    return found.toInt()
}

/** Calls what the template calls. */
internal fun Machine.call(callee: Any?, arguments: Arguments): Any? {
    step(1L + arguments.positional.size)
    return when (callee) {
        is Function -> callee.call(this, arguments)
        is LoopValue -> callee.call(this, arguments)
        is Undefined -> refuse(callee.message)
        is Opaque -> unsupported("calling ${callee.type}")
        else -> refuse("'${typeName(callee)}' object is not callable")
    }
}

/** A method with its object. */
internal class BoundMethod(val receiver: Any?, name: String, private val method: Method) : Function(name) {
    override fun call(machine: Machine, arguments: Arguments): Any? = method.call(machine, receiver, arguments)
}

internal interface Method {
    fun call(machine: Machine, receiver: Any?, arguments: Arguments): Any?
}

internal class Fixed(name: String, parameters: String, private val body: (self: Any?, Bound) -> Any?) : Method {
    private val signature = Signature(name, parameters)

    override fun call(machine: Machine, receiver: Any?, arguments: Arguments): Any? =
        body(receiver, signature.bind(machine, arguments))
}

/** A function of fixed parameters. */
internal fun native(name: String, parameters: String, body: (Bound) -> Any?): Function {
    val signature = Signature(name, parameters)
    return Native(name) { machine, arguments -> body(signature.bind(machine, arguments)) }
}

/** Where a slice or an index range begins and ends, within a length. */
internal fun clampIndex(value: Any?, length: Int, default: Int): Int {
    if (value == null) return default
    val found = wholeOf(value) ?: refuse("slice indices must be integers or None, not ${typeName(value)}")
    val size = BigInteger.valueOf(length.toLong())
    val positive = if (found.signum() < 0) found + size else found
    return positive.max(BigInteger.ZERO).min(size).toInt()
}
