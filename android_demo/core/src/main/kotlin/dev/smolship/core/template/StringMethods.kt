package dev.smolship.core.template

import java.math.BigInteger

/** The methods of Python's strings. */
internal val STRING_METHODS: Map<String, Method> =
    listOf<StringMethod>(
        method("capitalize", "") { s, _ -> capitalize(s) },
        method("casefold", "") { s, _ -> caseFold(s) },
        method("lower", "") { s, _ -> lower(s) },
        method("upper", "") { s, _ -> upper(s) },
        method("title", "") { s, _ -> title(s) },
        method("swapcase", "") { s, _ -> swapCase(s) },
        method("center", "width fill? /") { s, a -> pad(s, a, 0) },
        method("ljust", "width fill? /") { s, a -> pad(s, a, 1) },
        method("rjust", "width fill? /") { s, a -> pad(s, a, -1) },
        method("zfill", "width /") { s, a -> zeroFill(s, a) },
        method("expandtabs", "tabsize?") { s, a -> expandTabs(s, a) },
        method("strip", "chars? /") { s, a -> strip(s, a.textOrNone(0)) },
        method("lstrip", "chars? /") { s, a -> strip(s, a.textOrNone(0), right = false) },
        method("rstrip", "chars? /") { s, a -> strip(s, a.textOrNone(0), left = false) },
        method("removeprefix", "prefix /") { s, a -> s.removePrefix(a.text(0)) },
        method("removesuffix", "suffix /") { s, a -> s.removeSuffix(a.text(0)) },
        method("replace", "old new count? /") { s, a ->
            a.machine.replaceText(s, a.text(0), a.text(1), a.int(2, -1))
        },
        method("split", "sep? maxsplit?") { s, a ->
            texts(a.machine, separator(a)?.let { split(s, it, a.int(1, -1)) } ?: words(s, a.int(1, -1)))
        },
        method("rsplit", "sep? maxsplit?") { s, a ->
            texts(
                a.machine,
                separator(a)?.let { splitFromRight(s, it, a.int(1, -1)) } ?: wordsFromRight(s, a.int(1, -1)),
            )
        },
        method("splitlines", "keepends?") { s, a -> texts(a.machine, lines(s, a.flag(0))) },
        method("partition", "sep /") { s, a ->
            val parts = split(s, separator(a)!!, 1)
            TupleValue(if (parts.size == 2) listOf(parts[0], a.text(0), parts[1]) else listOf(s, "", ""))
        },
        method("rpartition", "sep /") { s, a ->
            val parts = splitFromRight(s, separator(a)!!, 1)
            TupleValue(if (parts.size == 2) listOf(parts[0], a.text(0), parts[1]) else listOf("", "", s))
        },
        method("join", "iterable /") { s, a -> join(s, a) },
        method("count", "sub start? end? /") { s, a ->
            within(s, a) { part, _ -> whole(countOf(part, a.text(0))) }
                ?: BigInteger.ZERO
        },
        method("find", "sub start? end? /") { s, a -> whole(find(s, a, last = false)) },
        method("rfind", "sub start? end? /") { s, a -> whole(find(s, a, last = true)) },
        method("index", "sub start? end? /") { s, a -> whole(needed(find(s, a, last = false))) },
        method("rindex", "sub start? end? /") { s, a -> whole(needed(find(s, a, last = true))) },
        method("startswith", "prefix start? end? /") { s, a -> affix(s, a) { part, it -> part.startsWith(it) } },
        method("endswith", "suffix start? end? /") { s, a -> affix(s, a) { part, it -> part.endsWith(it) } },
        method("isalnum", "") { s, _ -> isAlnum(s) },
        method("isalpha", "") { s, _ -> isAlpha(s) },
        method("isascii", "") { s, _ -> isAscii(s) },
        method("isdecimal", "") { s, _ -> isDecimal(s) },
        method("isdigit", "") { s, _ -> isDigit(s) },
        method("isidentifier", "") { s, _ -> isIdentifier(s) },
        method("islower", "") { s, _ -> isLower(s) },
        method("isnumeric", "") { s, _ -> isNumeric(s) },
        method("isprintable", "") { s, _ -> isPrintable(s) },
        method("isspace", "") { s, _ -> isSpace(s) },
        method("istitle", "") { s, _ -> isTitle(s) },
        method("isupper", "") { s, _ -> isUpper(s) },
        method("maketrans", "x y? z? /") { _, a -> makeTable(a) },
        method("translate", "table /") { s, a -> translate(s, a) },
        method("encode", "encoding? errors?") { _, _ -> unsupported("bytes") },
    ).associateBy { it.name } +
        mapOf<String, Method>("format" to FormatMethod(ofMap = false), "format_map" to FormatMethod(ofMap = true))

private fun method(name: String, parameters: String, body: (String, Bound) -> Any?) =
    StringMethod(name, parameters, body)

/** A method of strings; of markup it gives markup, as MarkupSafe has it. */
internal class StringMethod(val name: String, parameters: String, private val body: (String, Bound) -> Any?) : Method {
    private val signature = Signature(name, parameters)

    override fun call(machine: Machine, receiver: Any?, arguments: Arguments): Any? {
        val text = textOf(receiver)!!
        machine.search(text, arguments.positional + arguments.named.values)
        if (receiver !is Markup) return body(text, signature.bind(machine, arguments))
        val escaped =
            when (name) {
                "replace", "ljust", "rjust", "center" -> arguments.positional.mapIndexed { i, it ->
                    if (i == 1) {
                        escaped(machine, it)
                    } else {
                        it
                    }
                }
                "join" -> arguments.positional.map { all ->
                    ListValue(machine.elements(all).map { escaped(machine, it) })
                }
                else -> arguments.positional
            }
        return marked(body(text, signature.bind(machine, Arguments(escaped, arguments.named))))
    }

    private fun marked(value: Any?): Any? = when (value) {
        is String -> Markup(value)
        is ListValue -> ListValue(value.items.map { marked(it) })
        is TupleValue -> TupleValue(value.items.map { marked(it) })
        else -> value
    }
}

private fun texts(machine: Machine, items: List<String>): ListValue {
    machine.roomForItems(items.size.toLong())
    return ListValue(items)
}

private fun separator(a: Bound): String? {
    val separator = a.textOrNone(0) ?: return null
    if (separator.isEmpty()) refuse("empty separator")
    return separator
}

/** Runs [body] on the part between the arguments 1 and 2; null where that part is before itself. */
private fun <T> within(text: String, a: Bound, body: (part: String, start: Int) -> T): T? {
    if (a.value(1) == null && a.value(2) == null) return body(text, 0)
    val length = pointCount(text)
    val start = clampIndex(a.value(1), length, 0)
    val stop = clampIndex(a.value(2), length, length)
    val beyond = wholeOf(a.value(1))?.let { it > whole(length) } ?: false
    return if (beyond || start > stop) null else body(cut(text, start, stop), start)
}

private fun find(text: String, a: Bound, last: Boolean): Int {
    val sub = a.text(0)
    return within(text, a) { part, start ->
        val at = if (last) part.lastIndexOf(sub) else part.indexOf(sub)
        if (at < 0) -1 else start + part.codePointCount(0, at)
    } ?: -1
}

private fun needed(at: Int): Int = if (at < 0) refuse("substring not found") else at

private fun affix(text: String, a: Bound, test: (String, String) -> Boolean): Boolean {
    val wanted = (a.value(0) as? TupleValue)?.items ?: listOf(a.text(0))
    val texts = wanted.map { textOf(it) ?: refuse("a tuple of strings is wanted, not ${typeName(it)} in it") }
    return within(text, a) { part, _ -> texts.any { test(part, it) } } ?: false
}

private fun pad(text: String, a: Bound, side: Int): String {
    val width = a.int(0)
    val fill = a.text(1, " ")
    if (pointCount(fill) != 1) refuse("The fill character must be exactly one character long")
    return padded(a.machine, text, width, fill, side)
}

/** Pads to a width: [side] is 0 on both sides, 1 at the end, -1 at the beginning. */
internal fun padded(machine: Machine, text: String, width: Int, fill: String, side: Int): String {
    val missing = width - pointCount(text)
    if (missing <= 0) return text
    machine.room(text.length + missing.toLong() * fill.length)
    val before = if (side == 0) {
        missing / 2 + (missing and width and 1)
    } else if (side < 0) {
        missing
    } else {
        0
    }
    return fill.repeat(before) + text + fill.repeat(missing - before)
}

private fun zeroFill(text: String, a: Bound): String {
    val sign = if (text.startsWith("+") || text.startsWith("-")) text.substring(0, 1) else ""
    val width = a.int(0)
    return sign + padded(a.machine, text.substring(sign.length), width - sign.length, "0", -1)
}

private fun expandTabs(text: String, a: Bound): String {
    val size = a.int(0, 8)
    val found = StringBuilder()
    var column = 0
    for (point in points(text)) {
        if (point == "\t") {
            val spaces = if (size > 0) size - column % size else 0
            a.machine.room(spaces.toLong())
            found.append(" ".repeat(spaces))
            column += spaces
        } else {
            found.append(point)
            column = if (point == "\n" || point == "\r") 0 else column + 1
        }
    }
    return found.toString()
}

private fun join(text: String, a: Bound): String {
    val items = a.machine.each(a.value(0))
    val found = StringBuilder()
    var i = 0
    for (item in items) {
        val part = textOf(item) ?: refuse("sequence item $i: expected str instance, ${typeName(item)} found")
        a.machine.room(part.length.toLong() + text.length)
        if (i > 0) found.append(text)
        found.append(part)
        i++
    }
    return found.toString()
}

private fun makeTable(a: Bound): DictValue {
    val table = DictValue()
    if (!a.has(1)) {
        val given = a.value(0) as? DictValue ?: refuse("if you give only one argument to maketrans it must be a dict")
        for (entry in given.entries) {
            val text = textOf(entry.key)
            if (text != null && pointCount(text) != 1) refuse("string keys in translate table must be of length 1")
            table[
                if (text != null) {
                    whole(text.codePointAt(0))
                } else {
                    wholeOf(entry.key) ?: refuse("keys must be strings or integers")
                },
            ] =
                entry.value
        }
        return table
    }
    val from = points(a.text(0)).toList()
    val to = points(a.text(1)).toList()
    if (from.size != to.size) refuse("the first two maketrans arguments must have equal length")
    for (i in from.indices) table[whole(from[i].codePointAt(0))] = whole(to[i].codePointAt(0))
    if (a.has(2)) for (point in points(a.text(2))) table[whole(point.codePointAt(0))] = null
    return table
}

private fun translate(text: String, a: Bound): String {
    val table = a.value(0) as? DictValue ?: unsupported("translate by a ${typeName(a.value(0))}")
    val found = StringBuilder()
    for (point in points(text)) {
        val entry = table.find(whole(point.codePointAt(0)))
        val by = if (entry == null) point else entry.value
        val part =
            when (by) {
                null -> ""
                is BigInteger ->
                    if (by.signum() < 0 ||
                        by.bitLength() > 20
                    ) {
                        refuse("not a code point: $by")
                    } else {
                        String(Character.toChars(by.toInt()))
                    }
                else -> textOf(by) ?: refuse("character mapping must return integer, None or str")
            }
        a.machine.room(part.length.toLong())
        found.append(part)
    }
    return found.toString()
}
