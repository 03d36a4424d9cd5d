package dev.smolship.core.template

private const val DEFAULT_WIDTH = 79
private const val SPACE = "[\\t\\n\\x0b\\x0c\\r ]"
private const val NO_SPACE = "[^\\t\\n\\x0b\\x0c\\r ]"
private const val WORD = "[\\p{L}\\p{N}_]"
private const val PUNCTUATED = "[\\p{L}\\p{N}_!\"'&.,?]"
private const val LETTER = "[\\p{L}\\p{Nl}\\p{No}_]"

/** White space, dashes between words, and words, which end after a hyphen between letters. */
private val CHUNK =
    Regex(
        "$SPACE+|(?<=$PUNCTUATED)-{2,}(?=$WORD)|$NO_SPACE+?" +
            "(?:-(?:(?<=$LETTER{2}-)|(?<=$LETTER-$LETTER-))(?=$LETTER-?$LETTER)|" +
            "(?=$SPACE|\\z)|(?<=$PUNCTUATED)(?=-{2,}$WORD))",
    )
private val SIMPLE_CHUNK = Regex("$SPACE+|$NO_SPACE+")

/** The filter wordwrap: Python's textwrap of each line. */
internal fun wordWrap(a: Bound): String {
    val value = a.value(0)
    val text =
        textOf(value) ?: refuse((value as? Undefined)?.message ?: "wordwrap wants a string, not ${typeName(value)}")
    val width = a.int(1, DEFAULT_WIDTH)
    val between = if (a.value(3) == null) "\n" else a.text(3)
    val wrapper = Wrapper(width, breakWords = a.flag(2, true), breakHyphens = a.value(4, true))
    a.machine.room(text.length * (1L + between.length))
    a.machine.scan(text.length * Long.SIZE_BITS)
    return lines(text).joinToString(between) { wrapper.wrap(it).joinToString(between) }
}

private class Wrapper(private val width: Int, private val breakWords: Boolean, private val breakHyphens: Any?) {
    fun wrap(text: String): List<String> {
        if (width <= 0) refuse("invalid width $width (must be > 0)")
        val pattern = if (breakHyphens == true) CHUNK else SIMPLE_CHUNK
        val chunks = ArrayDeque(pattern.findAll(text).map { it.value }.toList())
        val found = ArrayList<String>()
        while (chunks.isNotEmpty()) {
            val line = line(chunks, first = found.isEmpty())
            if (line.isNotEmpty()) found.add(line.joinToString(""))
        }
        return found
    }

    private fun line(chunks: ArrayDeque<String>, first: Boolean): List<String> {
        val line = ArrayList<String>()
        var size = 0
        if (isBlank(chunks.first()) && !first) chunks.removeFirst()
        while (chunks.isNotEmpty() && size + pointCount(chunks.first()) <= width) {
            size += pointCount(chunks.first())
            line.add(chunks.removeFirst())
        }
        if (chunks.isNotEmpty() && pointCount(chunks.first()) > width) longWord(chunks, line, width - size)
        if (line.isNotEmpty() && isBlank(line.last())) line.removeAt(line.size - 1)
        return line
    }

    private fun longWord(chunks: ArrayDeque<String>, line: MutableList<String>, left: Int) {
        val word = chunks.removeFirst()
        if (!breakWords) {
            if (line.isEmpty()) line.add(word) else chunks.addFirst(word)
            return
        }
        var end = left
        if (truth(breakHyphens)) {
            val hyphen = cut(word, 0, left).lastIndexOf('-')
            if (hyphen > 0 && word.substring(0, hyphen).any { it != '-' }) end = word.codePointCount(0, hyphen) + 1
        }
        line.add(cut(word, 0, end))
        chunks.addFirst(cut(word, end, pointCount(word)))
    }

    private fun isBlank(chunk: String): Boolean = strip(chunk, null).isEmpty()
}
