package dev.smolship.core.template

import java.math.BigInteger

/** All filters by name; each is called with the value before the arguments. */
internal val FILTERS: Map<String, Function> by lazy {
    TEXT_FILTERS + HTML_FILTERS + NUMBER_FILTERS + LIST_FILTERS +
        SELECTING_FILTERS
}

internal fun Machine.filter(name: String, value: Any?, arguments: Arguments): Any? {
    search(value, arguments.positional + arguments.named.values)
    val filter = FILTERS[name] ?: refuse("No filter named '$name'.")
    return filter.call(this, Arguments(listOf(value) + arguments.positional, arguments.named))
}

internal fun filters(vararg functions: Function): Map<String, Function> = functions.associateBy { it.name }

/** The parts of an attribute's path: names, and numbers where a part has digits only. */
internal fun attributePath(attribute: Any?): List<Any?> {
    if (attribute == null) return emptyList()
    val text = textOf(attribute) ?: return listOf(attribute)
    return text.split('.').map {
        if (isDigit(it)) parseInt(it, BigInteger.TEN) ?: refuse("invalid number in '$text'") else it
    }
}

/** What jinja's `attribute=` looks up; [default], if not null, stands for what is undefined. */
internal class Getter(
    private val machine: Machine,
    attribute: Any?,
    private val ignoreCase: Boolean = false,
    private val default: Any? = null,
) : (Any?) -> Any? {
    private val path = attributePath(attribute)

    override fun invoke(value: Any?): Any? {
        var found = value
        for (part in path) {
            found = machine.getItem(found, part)
            if (default != null && found is Undefined) found = default
        }
        return if (ignoreCase) withoutCase(found) else found
    }
}

internal fun withoutCase(value: Any?): Any? = textOf(value)?.let { lower(it) } ?: value

private val TEXT_FILTERS =
    filters(
        text("upper", ::upper),
        text("lower", ::lower),
        text("capitalize", ::capitalize),
        text("title", ::titleFilter),
        native("string", "object") { a -> if (a.value(0) is Markup) a.value(0) else a.machine.str(a.value(0)) },
        native("trim", "value chars?") { a -> like(a.value(0), strip(a.machine.str(a.value(0)), a.textOrNone(1))) },
        native("center", "value width?") { a ->
            like(a.value(0), padded(a.machine, a.machine.str(a.value(0)), a.int(1, DEFAULT_CENTER), " ", 0))
        },
        native("replace", "s old new count?") { a ->
            val count = if (a.value(3) == null) -1 else a.int(3)
            val (old, new) = listOf(1, 2).map { a.machine.str(a.value(it)) }
            a.machine.replaceText(a.machine.str(a.value(0)), old, new, count)
        },
        native("indent", "s width? first? blank?", ::indent),
        native("truncate", "s length? killwords? end? leeway?", ::truncate),
        native("wordcount", "s") { a -> whole(WORD.findAll(a.machine.str(a.value(0))).count()) },
        native("wordwrap", "s width? break_long_words? wrapstring? break_on_hyphens?", ::wordWrap),
        native("tojson", "x ensure_ascii? indent? separators? sort_keys?") { ToJson.filter(it) },
        native("pprint", "value", ::prettyPrint),
        Native("format") { machine, arguments ->
            val format = arguments.positional[0]
            val rest = arguments.positional.drop(1)
            if (rest.isNotEmpty() &&
                arguments.named.isNotEmpty()
            ) {
                refuse("can't handle positional and keyword arguments at the same time")
            }
            val named = DictValue().also { dict -> for ((name, value) in arguments.named) dict[name] = value }
            val text = if (format is Markup) format else machine.str(format)
            like(format, machine.percent(text, if (arguments.named.isEmpty()) TupleValue(rest) else named))
        },
    )

private const val DEFAULT_CENTER = 80
private const val DEFAULT_INDENT = 4
private const val DEFAULT_LENGTH = 255
private const val DEFAULT_LEEWAY = 5
private const val PRETTY_WIDTH = 80
private val WORD = Regex("[\\p{L}\\p{N}_]+")
private val TITLE_BREAKS = "-({[<"

private fun text(name: String, body: (String) -> String): Function = native(name, "s") { a ->
    val text = a.machine.str(a.value(0))
    a.machine.room(text.length.toLong())
    like(a.value(0), body(text))
}

/** The first character of each word in upper case, the others in lower case; words end at white space and brackets. */
private fun titleFilter(text: String): String {
    val out = StringBuilder()
    val word = StringBuilder()
    val flush = {
        if (word.isNotEmpty()) {
            val first = Character.charCount(word.codePointAt(0))
            out.append(upper(word.substring(0, first))).append(lower(word.substring(first)))
            word.setLength(0)
        }
    }
    for (point in points(text)) {
        if (point in TITLE_BREAKS || isSpace(point.codePointAt(0))) {
            flush()
            out.append(point)
        } else {
            word.append(point)
        }
    }
    flush()
    return out.toString()
}

private fun indent(a: Bound): Any {
    val value = a.value(0)
    val text =
        textOf(value) ?: refuse((value as? Undefined)?.message ?: "indent wants a string, not ${typeName(value)}")
    val indention = textOf(a.value(1, whole(DEFAULT_INDENT))) ?: " ".repeat(maxOf(0, indentWidth(a)))
    val all = lines(text + "\n")
    a.machine.room(text.length + all.size.toLong() * (indention.length + 1))
    val blank = a.flag(3)
    val indented = all.mapIndexed { i, line -> if (i > 0 && (blank || line.isNotEmpty())) indention + line else line }
    return like(value, (if (a.flag(2)) indention else "") + indented.joinToString("\n"))
}

private fun indentWidth(a: Bound): Int {
    val width = a.int(1, DEFAULT_INDENT)
    a.machine.room(maxOf(0, width).toLong())
    return width
}

private fun truncate(a: Bound): Any? {
    val length = a.int(1, DEFAULT_LENGTH)
    val end = a.text(3, "...")
    val leeway = if (a.value(4) == null) DEFAULT_LEEWAY else a.int(4)
    if (length < pointCount(end)) refuse("expected length >= ${pointCount(end)}, got $length")
    if (leeway < 0) refuse("expected leeway >= 0, got $leeway")
    val value = a.value(0)
    val size = lengthOf(value) ?: refuse("object of type '${typeName(value)}' has no len()")
    if (size <= length + leeway.toLong()) return value
    val text = textOf(value) ?: refuse("truncate wants a string, not ${typeName(value)}")
    val kept = cut(text, 0, length - pointCount(end))
    val shown = if (a.flag(2)) kept else splitFromRight(kept, " ", 1)[0]
    return a.machine.binary("+", like(value, shown), a.value(3, "..."))
}

/** Python's pprint of what fits on one line: the keys of dictionaries are sorted. */
private fun prettyPrint(a: Bound): String {
    val text = a.machine.repr(sortedKeys(a.machine, a.value(0)))
    return if (text.length <= PRETTY_WIDTH) text else unsupported("pprint of more than a line")
}

private fun sortedKeys(machine: Machine, value: Any?): Any? = machine.inside {
    when (value) {
        is ListValue -> ListValue(value.items.map { sortedKeys(machine, it) })
        is TupleValue -> TupleValue(value.items.map { sortedKeys(machine, it) })
        is DictValue ->
            DictValue().also { sorted ->
                for (entry in machine.sorted(value.entries.toList(), false) { it.key }) {
                    sorted[entry.key] = sortedKeys(machine, entry.value)
                }
            }
        else -> value
    }
}
