package dev.smolship.core.template

/** str.format, as jinja's sandbox runs it: attributes and elements are those of the template. */
internal class FormatMethod(private val ofMap: Boolean) : Method {
    override fun call(machine: Machine, receiver: Any?, arguments: Arguments): Any? {
        val given = if (ofMap) named(arguments) else arguments
        val formatter = Formatter(machine, given.positional, given.named, escapes = receiver is Markup)
        return like(receiver, formatter.format(textOf(receiver)!!, NESTED))
    }

    private fun named(arguments: Arguments): Arguments {
        val values = arguments.positional.singleOrNull() as? DictValue
        if (values == null || arguments.named.isNotEmpty()) refuse("format_map() takes exactly one dictionary")
        return Arguments(
            emptyList(),
            values.entries.filter { it.key is String }.associate {
                it.key as String to
                    it.value
            },
        )
    }

    private companion object {
        const val NESTED = 2 // formats within formats
    }
}

private class Formatter(
    private val machine: Machine,
    private val positional: List<Any?>,
    private val named: Map<String, Any?>,
    private val escapes: Boolean,
) {
    private var automatic = 0
    private var numbered = false

    fun format(text: String, depth: Int): String {
        if (depth < 0) refuse("Max string recursion exceeded")
        val out = StringBuilder()
        var at = 0
        while (at < text.length) {
            val char = text[at]
            if (char != '{' && char != '}') {
                out.append(char)
                at++
            } else if (text.getOrNull(at + 1) == char) {
                out.append(char)
                at += 2
            } else if (char == '}') {
                refuse("Single '}' encountered in format string")
            } else {
                val end = fieldEnd(text, at)
                val made = field(text.substring(at + 1, end), depth)
                machine.room(made.length.toLong())
                out.append(made)
                at = end + 1
            }
        }
        machine.room(out.length.toLong())
        return out.toString()
    }

    private fun fieldEnd(text: String, start: Int): Int {
        var depth = 0
        var bracket = false
        for (i in start until text.length) {
            when (text[i]) {
                '[' -> bracket = true
                ']' -> bracket = false
                '{' -> if (!bracket || depth > 1) depth++
                '}' -> if (!bracket && --depth == 0) return i
            }
        }
        refuse("expected '}' before end of string")
    }

    private fun field(field: String, depth: Int): String {
        val nameEnd = nameEnd(field)
        val name = field.substring(0, nameEnd)
        var rest = field.substring(nameEnd)
        var conversion = ' '
        if (rest.startsWith("!")) {
            conversion = rest.getOrNull(1) ?: refuse("end of string while looking for conversion specifier")
            rest = rest.substring(2)
            if (rest.isNotEmpty() && !rest.startsWith(":")) refuse("expected ':' after conversion specifier")
        }
        val value = lookUp(name)
        val spec = format(rest.removePrefix(":"), depth - 1)
        val converted =
            when (conversion) {
                ' ' -> value
                's' -> machine.str(value)
                'r' -> machine.repr(value)
                'a' -> machine.ascii(value)
                else -> refuse("Unknown conversion specifier $conversion")
            }
        if (!escapes) return formatValue(machine, converted, spec)
        if (converted !is Markup) return escape(formatValue(machine, converted, spec))
        return if (spec.isEmpty()) converted.text else refuse("Format specifier $spec given for markup")
    }

    private fun nameEnd(field: String): Int {
        var bracket = false
        for (i in field.indices) {
            when (field[i]) {
                '[' -> bracket = true
                ']' -> bracket = false
                '{' -> if (!bracket) refuse("unexpected '{' in field name")
                '!', ':' -> if (!bracket) return i
            }
        }
        return field.length
    }

    private fun lookUp(name: String): Any? {
        val first = name.takeWhile { it != '.' && it != '[' }
        var value = if (name.isEmpty()) next() else named(first, alone = first == name)
        var at = first.length
        while (at < name.length) {
            if (name[at] == '.') {
                val end = name.indexOfAny(charArrayOf('.', '['), at + 1).let { if (it < 0) name.length else it }
                val part = name.substring(at + 1, end).ifEmpty { refuse("Empty attribute in format string") }
                value = machine.getAttribute(value, part)
                at = end
            } else {
                val end = name.indexOf(']', at).let { if (it < 0) refuse("Missing ']' in format string") else it }
                val part = name.substring(at + 1, end).ifEmpty { refuse("Empty attribute in format string") }
                value = machine.getItem(value, if (part.all { it in '0'..'9' }) part.toBigInteger() else part)
                at = end + 1
                if (at < name.length &&
                    name[at] !in ".["
                ) {
                    refuse("Only '.' or '[' may follow ']' in format field specifier")
                }
            }
        }
        return value
    }

    private fun next(): Any? {
        if (numbered) refuse("cannot switch from manual field specification to automatic field numbering")
        return positional.getOrElse(automatic++) { refuse("Replacement index ${automatic - 1} out of range") }
    }

    private fun named(name: String, alone: Boolean): Any? {
        if (name.isNotEmpty() && name.all { it in '0'..'9' }) {
            if (alone && automatic > 0) {
                refuse("cannot switch from automatic field numbering to manual field specification")
            }
            if (alone) numbered = true
            return positional.getOrElse(name.toIntOrNull() ?: -1) { refuse("Replacement index $name out of range") }
        }
        return if (name in named) named[name] else refuse("no argument '$name' to format")
    }
}
