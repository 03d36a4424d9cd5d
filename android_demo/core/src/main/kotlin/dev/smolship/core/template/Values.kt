package dev.smolship.core.template

import java.math.BigDecimal
import java.math.BigInteger

// A template's values: null (None), Boolean, BigInteger, Double, String, and the classes of this file. Strings are
// looked at by code points. Nothing but namespaces, cyclers, joiners, loops and generators can change.

/** A string that jinja holds for HTML: what is added to it is escaped. */
internal class Markup(val text: String)

internal class ListValue(val items: List<Any?>)

/** A tuple; groupby's have a name for each element. */
internal class TupleValue(val items: List<Any?>, val names: List<String> = emptyList())

internal class RangeValue(val start: Long, val stop: Long, val step: Long) {
    val length: Long
        get() {
            val distance = if (step > 0) stop - start else start - stop
            return if (distance <= 0) 0 else (distance - 1) / Math.abs(step) + 1
        }
    val size: Int get() = length.toInt()

    operator fun get(index: Int): BigInteger = BigInteger.valueOf(start + index * step)
}

/** A dictionary: Python's equality of keys (1, 1.0 and True are one), in the order in which they came. */
internal class DictValue {
    class Entry(val key: Any?, var value: Any?)

    private val found = LinkedHashMap<Any?, Entry>()
    val entries: Collection<Entry> get() = found.values
    val size: Int get() = found.size

    operator fun set(key: Any?, value: Any?) {
        val hashed = hashKey(key)
        val entry = found[hashed]
        if (entry == null) found[hashed] = Entry(key, value) else entry.value = value
    }

    fun find(key: Any?): Entry? = found[hashKey(key)]

    fun copy(): DictValue = DictValue().also { copy -> for (entry in entries) copy[entry.key] = entry.value }
}

/** What keys(), values() and items() give. */
internal class DictView(val kind: Kind, val dict: DictValue) {
    enum class Kind { KEYS, VALUES, ITEMS }

    fun element(entry: DictValue.Entry): Any? = when (kind) {
        Kind.KEYS -> entry.key
        Kind.VALUES -> entry.value
        Kind.ITEMS -> TupleValue(listOf(entry.key, entry.value))
    }
}

/** What is computed as it is asked for, once: true whatever it holds, and without a length. */
internal class Generator(private val source: Iterator<Any?>) : Iterator<Any?> by source

/** jinja's undefined: it prints as nothing, and most of what is done with it is an error with [message]. */
internal class Undefined(val message: String)

internal class NamespaceValue(val attributes: DictValue = DictValue())

/** A function, macro, type or bound method. */
internal abstract class Function(val name: String) {
    abstract fun call(machine: Machine, arguments: Arguments): Any?
}

internal class Native(name: String, private val body: (Machine, Arguments) -> Any?) : Function(name) {
    override fun call(machine: Machine, arguments: Arguments): Any? = body(machine, arguments)
}

/** What [Function]s are called with. */
internal class Arguments(val positional: List<Any?>, val named: Map<String, Any?> = emptyMap())

/** A value that exists and of which little is known here: it is true and cannot be printed. */
internal class Opaque(val type: String)

/** The absence of a value, where null would be None. */
internal object Absent

internal fun whole(value: Int): BigInteger = BigInteger.valueOf(value.toLong())

/** The text of a string or [Markup]; null for any other value. */
internal fun textOf(value: Any?): String? = when (value) {
    is String -> value
    is Markup -> value.text
    else -> null
}

/** The elements of a list or tuple; null for any other value. */
internal fun itemsOf(value: Any?): List<Any?>? = when (value) {
    is ListValue -> value.items
    is TupleValue -> value.items
    else -> null
}

/** A whole number, booleans included; null for any other value. */
internal fun wholeOf(value: Any?): BigInteger? = when (value) {
    is BigInteger -> value
    is Boolean -> if (value) BigInteger.ONE else BigInteger.ZERO
    else -> null
}

/** A string of the same kind as [model]: markup stays markup. */
internal fun like(model: Any?, text: String): Any = if (model is Markup) Markup(text) else text

internal fun typeName(value: Any?): String = when (value) {
    null -> "NoneType"
    is Boolean -> "bool"
    is BigInteger -> "int"
    is Double -> "float"
    is String -> "str"
    is Markup -> "Markup"
    is ListValue -> "list"
    is TupleValue -> "tuple"
    is DictValue -> "dict"
    is RangeValue -> "range"
    is DictView -> "dict_${value.kind.name.lowercase(java.util.Locale.ROOT)}"
    is Generator -> "generator"
    is Undefined -> "Undefined"
    is NamespaceValue -> "Namespace"
    is Macro -> "Macro"
    is Function -> "function"
    is LoopValue -> "LoopContext"
    is Cycler -> "Cycler"
    is Opaque -> value.type
    else -> value.javaClass.simpleName
}

private const val MOST_IN_KEY = 256

/** A key of a hash table, equal where Python's values are equal; refused for lists, dictionaries and long tuples. */
internal fun hashKey(value: Any?): Any? = Hasher().key(value)

private class Hasher {
    private var left = MOST_IN_KEY

    fun key(value: Any?): Any? = when (value) {
        null -> Absent
        is Boolean -> wholeOf(value)
        is Double -> if (value.isInfinite() || value != Math.rint(value)) value else BigDecimal(value).toBigInteger()
        is Markup -> value.text
        is TupleValue -> value.items.map { element(it) }
        is Undefined -> Undefined::class
        is RangeValue -> (0 until minOf(value.size, 2)).map { value[it] } + value.size
        is ListValue, is DictValue -> unhashable(value)
        is DictView -> if (value.kind == DictView.Kind.VALUES) value else unhashable(value)
        else -> value
    }

    private fun element(value: Any?): Any? {
        if (--left < 0) unsupported("a key of more than $MOST_IN_KEY elements")
        return key(value)
    }

    private fun unhashable(value: Any?): Nothing = refuse("unhashable type: '${typeName(value)}'")
}

internal fun truth(value: Any?): Boolean = when (value) {
    null -> false
    is Boolean -> value
    is BigInteger -> value.signum() != 0
    is Double -> value != 0.0
    is Undefined -> false
    is LoopValue -> true
    is String -> value.isNotEmpty()
    is Markup -> value.text.isNotEmpty()
    else -> lengthOf(value) != 0
}

/** Python's len; null where a value has none. */
internal fun lengthOf(value: Any?): Int? = when (value) {
    is String -> value.codePointCount(0, value.length)
    is Markup -> value.text.codePointCount(0, value.text.length)
    is ListValue -> value.items.size
    is TupleValue -> value.items.size
    is DictValue -> value.size
    is DictView -> value.dict.size
    is RangeValue -> value.size
    is Undefined -> 0
    is LoopValue -> value.length()
    else -> null
}

/** What a for loop goes over; null where a value cannot be iterated. */
internal fun iterate(value: Any?): Iterator<Any?>? = when (value) {
    is String -> points(value).iterator()
    is Markup -> points(value.text).iterator() // of plain strings, as in Python
    is ListValue -> value.items.iterator()
    is TupleValue -> value.items.iterator()
    is DictValue -> value.entries.asSequence().map { it.key }.iterator()
    is DictView -> value.dict.entries.asSequence().map { value.element(it) }.iterator()
    is RangeValue -> (0 until value.size).asSequence().map { value[it] }.iterator()
    is Generator -> value
    is Undefined -> emptyList<Any?>().iterator()
    is LoopValue -> unsupported("a loop over the variable loop")
    else -> null
}

/** As [iterate], refused where a value cannot be iterated; each element counts as a step. */
internal fun Machine.each(value: Any?): Iterator<Any?> {
    val items = iterate(value) ?: refuse("'${typeName(value)}' object is not iterable")
    return object : Iterator<Any?> {
        override fun hasNext(): Boolean = items.hasNext()

        override fun next(): Any? {
            step()
            return items.next()
        }
    }
}

/** All elements of an iterable; room is asked for. */
internal fun Machine.elements(value: Any?): List<Any?> {
    itemsOf(value)?.let { return it } // nothing changes it, so that it needs no copy
    lengthOf(value)?.let { roomForItems(it.toLong()) }
    val found = ArrayList<Any?>()
    for (item in each(value)) {
        if (value is Generator) roomForItems(1)
        found.add(item)
    }
    return found
}

/** The code points of a text, each as a string, one at a time. */
internal fun points(text: String): Sequence<String> = Sequence {
    object : Iterator<String> {
        private var at = 0

        override fun hasNext(): Boolean = at < text.length

        override fun next(): String {
            val start = at
            at += Character.charCount(text.codePointAt(start))
            return text.substring(start, at)
        }
    }
}
