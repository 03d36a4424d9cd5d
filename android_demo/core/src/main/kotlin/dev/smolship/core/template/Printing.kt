package dev.smolship.core.template

import dev.smolship.core.json.shortest
import java.math.BigInteger
import java.util.Collections
import java.util.IdentityHashMap

private const val MOST_DIGITS = 4300

/** Python's str: what is written where a value is printed. */
internal fun Machine.str(value: Any?): String = when (value) {
    is String -> value
    is Markup -> value.text
    is Undefined -> ""
    else -> repr(value)
}

internal fun Machine.repr(value: Any?): String = Printer(this).also { it.repr(value) }.text

internal fun Machine.reprOfText(text: String): String = Printer(this).also { it.quote(text) }.text

internal fun reprOfDouble(value: Double): String = when {
    value.isNaN() -> "nan"
    value.isInfinite() -> if (value > 0) "inf" else "-inf"
    else -> shortest(value)
}

/** The digits of a whole number; Python does not convert more than [MOST_DIGITS]. */
internal fun digits(value: BigInteger): String {
    if (value.abs() >= TOO_LONG) refuse("a number of more than $MOST_DIGITS digits cannot be printed")
    return value.toString()
}

private val TOO_LONG = BigInteger.TEN.pow(MOST_DIGITS)

private class Printer(private val machine: Machine) {
    private val out = StringBuilder()
    private val open = Collections.newSetFromMap(IdentityHashMap<Any, Boolean>())
    val text: String get() = out.toString()

    fun repr(value: Any?) {
        when (value) {
            null -> add("None")
            is Boolean -> add(if (value) "True" else "False")
            is BigInteger -> add(digits(value))
            is Double -> add(reprOfDouble(value))
            is String -> quote(value)
            is Markup -> {
                add("Markup(")
                quote(value.text)
                add(")")
            }
            is Undefined -> add("Undefined")
            is ListValue -> list("[", "]", value, value.items) { repr(it) }
            is TupleValue -> list("(", if (value.items.size == 1) ",)" else ")", value, value.items) { repr(it) }
            is DictValue -> list("{", "}", value, value.entries) { entry(it) }
            is DictView -> {
                add("${typeName(value)}(")
                list("[", "]", value, value.dict.entries) { repr(value.element(it)) }
                add(")")
            }
            is RangeValue -> {
                val step = if (value.step == 1L) "" else ", ${value.step}"
                add("range(${value.start}, ${value.stop}$step)")
            }
            is NamespaceValue -> {
                add("<Namespace ")
                repr(value.attributes)
                add(">")
            }
            is LoopValue -> add("<LoopContext ${value.index0 + 1}/${value.length()}>")
            is Macro -> {
                add("<Macro ")
                if (value.title == null) add("anonymous") else quote(value.title)
                add(">")
            }
            is Opaque -> if (value.type == SELF) {
                add("<TemplateReference None>")
            } else {
                unsupported("printing ${value.type}")
            }
            else -> unsupported("printing a ${typeName(value)}")
        }
    }

    private fun entry(entry: DictValue.Entry) {
        repr(entry.key)
        add(": ")
        repr(entry.value)
    }

    private fun <T> list(start: String, end: String, value: Any, items: Collection<T>, each: (T) -> Unit) {
        if (!open.add(value)) {
            add(if (value is DictView) "..." else "$start...${end.takeLast(1)}")
            return
        }
        machine.inside {
            add(start)
            items.forEachIndexed { i, item ->
                if (i > 0) add(", ")
                each(item)
            }
            add(end)
        }
        open.remove(value)
    }

    private fun add(text: String) {
        machine.room(text.length.toLong())
        out.append(text)
    }

    fun quote(text: String) {
        machine.room(text.length.toLong())
        val quote = if ('\'' in text && '"' !in text) '"' else '\''
        out.append(quote)
        var at = 0
        while (at < text.length) {
            val point = text.codePointAt(at)
            at += Character.charCount(point)
            when {
                point == quote.code || point == '\\'.code -> out.append('\\').appendCodePoint(point)
                point == '\n'.code -> out.append("\\n")
                point == '\r'.code -> out.append("\\r")
                point == '\t'.code -> out.append("\\t")
                isPrintable(point) -> out.appendCodePoint(point)
                else -> out.append(escaped(point))
            }
        }
        out.append(quote)
    }
}

/** A code point as Python's strings spell it. */
internal fun escaped(point: Int): String = when {
    point <= 0xFF -> String.format(java.util.Locale.ROOT, "\\x%02x", point)
    point <= 0xFFFF -> String.format(java.util.Locale.ROOT, "\\u%04x", point)
    else -> String.format(java.util.Locale.ROOT, "\\U%08x", point)
}

/** Python's ascii: repr with every character beyond ASCII escaped. */
internal fun Machine.ascii(value: Any?): String =
    points(repr(value)).joinToString("") { if (isAscii(it)) it else escaped(it.codePointAt(0)) }
