package dev.smolship.core.template

import java.math.BigInteger
import java.util.Collections
import java.util.IdentityHashMap

/** Python's json.dumps, as the filter tojson of chat templates calls it. */
internal class ToJson(
    private val machine: Machine,
    private val ascii: Boolean,
    private val indent: String?,
    private val itemSeparator: String,
    private val keySeparator: String,
    private val sortKeys: Boolean,
) {
    private val out = StringBuilder()
    private val open = Collections.newSetFromMap(IdentityHashMap<Any, Boolean>())

    fun dump(value: Any?): String {
        write(value, 1)
        return out.toString()
    }

    private fun add(text: String) {
        machine.room(text.length.toLong())
        out.append(text)
    }

    private fun write(value: Any?, level: Int) {
        when (value) {
            is String -> quote(value)
            is Markup -> quote(value.text)
            is ListValue, is TupleValue -> list('[', ']', value, itemsOf(value)!!, level) { write(it, level + 1) }
            is DictValue ->
                list('{', '}', value, entries(value), level) {
                    quote(key(it.key))
                    add(keySeparator)
                    write(it.value, level + 1)
                }
            else -> add(scalar(value) ?: refuse("Object of type ${typeName(value)} is not JSON serializable"))
        }
    }

    private fun entries(value: DictValue): Collection<DictValue.Entry> =
        if (sortKeys) machine.sorted(value.entries.toList(), false) { it.key } else value.entries

    private fun scalar(value: Any?): String? = when (value) {
        null -> "null"
        is Boolean -> value.toString()
        is BigInteger -> digits(value)
        is Double -> if (value.isNaN()) {
            "NaN"
        } else if (value.isInfinite()) {
            (
                if (value > 0) {
                    "Infinity"
                } else {
                    "-Infinity"
                }
                )
        } else {
            reprOfDouble(value)
        }
        else -> null
    }

    private fun key(value: Any?): String =
        textOf(value) ?: scalar(value) ?: refuse("keys must be str, int, float, bool or None, not ${typeName(value)}")

    private fun <T> list(start: Char, end: Char, value: Any, items: Collection<T>, level: Int, each: (T) -> Unit) {
        if (!open.add(value)) refuse("Circular reference detected")
        machine.inside {
            add(start.toString())
            items.forEachIndexed { i, item ->
                if (i > 0) add(itemSeparator)
                line(level)
                each(item)
            }
            if (items.isNotEmpty()) line(level - 1)
            add(end.toString())
        }
        open.remove(value)
    }

    private fun line(level: Int) {
        if (indent == null) return
        machine.room(1L + indent.length.toLong() * level)
        out.append('\n').append(indent.repeat(level))
    }

    private fun quote(text: String) {
        machine.room(text.length + 2L)
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
                else ->
                    if (char < ' ' || (ascii && char > '~')) {
                        out.append("\\u").append(char.code.toString(16).padStart(4, '0'))
                    } else {
                        out.append(char)
                    }
            }
        }
        out.append('"')
    }

    companion object {
        private const val MOST_SPACES = 1 shl 20

        /** The filter: `x ensure_ascii? indent? separators? sort_keys?` */
        fun filter(a: Bound): String {
            val indent = indentOf(a.value(2))
            val separators = a.value(3)
            val given = if (separators == null) null else pair(a.machine, separators)
            val machine = a.machine
            return ToJson(
                machine,
                ascii = a.flag(1),
                indent = indent,
                itemSeparator = given?.get(0) ?: if (indent == null) ", " else ",",
                keySeparator = given?.get(1) ?: ": ",
                sortKeys = a.flag(4),
            ).dump(a.value(0))
        }

        private fun indentOf(value: Any?): String? {
            if (value == null) return null
            textOf(value)?.let { return it }
            val spaces = smallInt(value) ?: refuse("indent must be a number or a string, not ${typeName(value)}")
            if (spaces > MOST_SPACES) refuse("an indent of $spaces is too wide")
            return " ".repeat(maxOf(spaces, 0))
        }

        private fun pair(machine: Machine, value: Any?): List<String> {
            val found = machine.elements(value).map { textOf(it) ?: refuse("separators must be strings") }
            return if (found.size == 2) found else refuse("separators must be two strings, not ${found.size}")
        }
    }
}
