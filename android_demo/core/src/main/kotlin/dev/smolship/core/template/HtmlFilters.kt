package dev.smolship.core.template

internal val HTML_FILTERS =
    filters(
        native("escape", "s") { a -> escaped(a.machine, a.value(0)) },
        native("e", "s") { a -> escaped(a.machine, a.value(0)) },
        native("forceescape", "value") { a -> Markup(escape(a.machine.str(a.value(0)))) },
        native("safe", "value") { a -> Markup(a.machine.str(a.value(0))) },
        native("striptags", "value") { a -> stripTags(a.machine.str(a.value(0))) },
        native("urlencode", "value", ::urlEncode),
        native("urlize", "value trim_url_limit? nofollow? target? rel? extra_schemes?") {
            unsupported("the filter urlize")
        },
        native("xmlattr", "d autospace?", ::xmlAttributes),
    )

/** A text with HTML's special characters as entities. */
internal fun escape(text: String): String = buildString(text.length) {
    for (char in text) {
        when (char) {
            '&' -> append("&amp;")
            '<' -> append("&lt;")
            '>' -> append("&gt;")
            '\'' -> append("&#39;")
            '"' -> append("&#34;")
            else -> append(char)
        }
    }
}

internal fun escaped(machine: Machine, value: Any?): Markup {
    if (value is Markup) return value
    val text = escape(machine.str(value))
    machine.room(text.length.toLong())
    return Markup(text)
}

private fun stripTags(text: String): String {
    val out = StringBuilder()
    var at = 0
    while (true) {
        val start = text.indexOf('<', at)
        val comment = start >= 0 && text.startsWith("<!--", start)
        val close = if (comment) "-->" else ">"
        val end = if (start < 0) -1 else text.indexOf(close, if (comment) start + 4 else start)
        if (end < 0) break
        out.append(text, at, start)
        at = end + close.length
    }
    out.append(text, at, text.length)
    return unescape(words(out.toString()).joinToString(" "))
}

private val ENTITIES = mapOf("amp" to "&", "lt" to "<", "gt" to ">", "quot" to "\"", "#39" to "'", "#34" to "\"")
private val ENTITY = Regex("&(#?[A-Za-z0-9]+)(;?)")

private fun unescape(text: String): String = ENTITY.replace(text) {
    val known = ENTITIES[it.groupValues[1]]
    if (known == null || it.groupValues[2].isEmpty()) unsupported("the HTML entity ${it.value}")
    Regex.escapeReplacement(known)
}

private fun quote(machine: Machine, value: Any?, inQuery: Boolean): String {
    val bytes = machine.str(value).toByteArray(Charsets.UTF_8)
    machine.room(bytes.size * 3L)
    return buildString {
        for (byte in bytes) {
            val char = (byte.toInt() and 0xFF).toChar()
            when {
                char in 'a'..'z' || char in 'A'..'Z' || char in '0'..'9' || char in "_.-~" -> append(char)
                char == '/' && !inQuery -> append(char)
                char == ' ' && inQuery -> append('+')
                else -> append(String.format(java.util.Locale.ROOT, "%%%02X", char.code))
            }
        }
    }
}

private fun urlEncode(a: Bound): String {
    val value = a.value(0)
    val machine = a.machine
    if (textOf(value) != null || iterate(value) == null) return quote(machine, value, false)
    val pairs = if (value is DictValue) DictView(DictView.Kind.ITEMS, value) else value
    return machine.each(pairs).asSequence().joinToString("&") { pair ->
        val (name, content) = machine.elements(pair).also { if (it.size != 2) refuse("urlencode wants pairs") }
        quote(machine, name, true) + "=" + quote(machine, content, true)
    }
}

private fun xmlAttributes(a: Bound): String {
    val dict = a.value(0) as? DictValue ?: refuse("xmlattr wants a dictionary, not ${typeName(a.value(0))}")
    val found =
        dict.entries.filter { it.value != null && it.value !is Undefined }.joinToString(" ") { entry ->
            val name = textOf(entry.key) ?: refuse("xmlattr wants strings as names, not ${typeName(entry.key)}")
            if (name.any { it in " \t\n\r\u000b\u000c/>=" }) refuse("Invalid character in attribute name: '$name'")
            escaped(a.machine, entry.key).text + "=\"" + escaped(a.machine, entry.value).text + "\""
        }
    return if (found.isNotEmpty() && a.flag(1, true)) " $found" else found
}
