package dev.smolship.core.template

import java.util.Locale

// Strings as Python has them: sequences of code points.

internal fun pointCount(text: String): Int = text.codePointCount(0, text.length)

/** Whether each code point is one char, so that indices need no search. */
private fun isFlat(text: String): Boolean = text.none { it.isSurrogate() }

/** The offset in chars of a code point. */
internal fun offset(text: String, point: Int): Int = text.offsetByCodePoints(0, point)

/** The code points from [start] until [stop]. */
internal fun cut(text: String, start: Int, stop: Int): String {
    val from = offset(text, start)
    return text.substring(from, text.offsetByCodePoints(from, maxOf(0, stop - start)))
}

/** The code points at these positions, as for a slice with a step. */
internal fun pick(text: String, positions: Iterable<Int>): String {
    if (isFlat(text)) return buildString { for (i in positions) append(text[i]) }
    val all = text.codePoints().toArray()
    return buildString { for (i in positions) appendCodePoint(all[i]) }
}

internal fun reversed(text: String): String = StringBuilder(text).reverse().toString() // keeps surrogate pairs

/** The order of code points, which is not that of UTF-16. */
internal fun compareText(left: String, right: String): Int {
    val shared = minOf(left.length, right.length)
    var i = 0
    while (i < shared && left[i] == right[i]) i++
    if (i == shared) return left.length - right.length
    val a = left[i]
    val b = right[i]
    return if (a.isSurrogate() == b.isSurrogate()) {
        a.compareTo(b)
    } else if (a.isSurrogate()) {
        1
    } else {
        -1
    }
}

internal fun isSpace(point: Int): Boolean = when (point) {
    in 0x09..0x0D, in 0x1C..0x20, 0x85, 0xA0, 0x1680, in 0x2000..0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000 -> true
    else -> false
}

private fun isLineEnd(char: Char): Boolean = when (char) {
    in '\n'..'\r', in '\u001c'..'\u001e', '\u0085', '\u2028', '\u2029' -> true
    else -> false
}

/** Python's splitlines. */
internal fun lines(text: String, keepEnds: Boolean = false): List<String> {
    val found = ArrayList<String>()
    var start = 0
    while (start < text.length) {
        var end = start
        while (end < text.length && !isLineEnd(text[end])) end++
        var next = minOf(end + 1, text.length)
        if (next < text.length && text[end] == '\r' && text[next] == '\n') next++
        found.add(text.substring(start, if (keepEnds) next else end))
        start = next
    }
    return found
}

/** Strips white space, or the characters of [chars]. */
internal fun strip(text: String, chars: String?, left: Boolean = true, right: Boolean = true): String {
    val set = chars?.codePoints()?.toArray()?.toHashSet()
    val drop = { point: Int -> if (set == null) isSpace(point) else point in set }
    var start = 0
    var end = text.length
    while (left && start < end && drop(text.codePointAt(start))) start += Character.charCount(text.codePointAt(start))
    while (right && end > start &&
        drop(text.codePointBefore(end))
    ) {
        end -= Character.charCount(text.codePointBefore(end))
    }
    return text.substring(start, end)
}

/** The words between white space; after [limit] of them, unless that is negative, the rest is one. */
internal fun words(text: String, limit: Int = -1): List<String> {
    val found = ArrayList<String>()
    var at = 0
    while (true) {
        while (at < text.length && isSpace(text[at].code)) at++
        if (at == text.length) return found
        var end = at
        while (end < text.length && (found.size == limit || !isSpace(text[end].code))) end++
        found.add(text.substring(at, end))
        at = end
    }
}

/** As [words], counted from the right. */
internal fun wordsFromRight(text: String, limit: Int): List<String> =
    if (limit < 0) words(text) else words(reversed(text), limit).map { reversed(it) }.reversed()

internal fun split(text: String, separator: String, limit: Int = -1): List<String> {
    val found = ArrayList<String>()
    var start = 0
    while (limit < 0 || found.size < limit) {
        val at = text.indexOf(separator, start)
        if (at < 0) break
        found.add(text.substring(start, at))
        start = at + separator.length
    }
    found.add(text.substring(start))
    return found
}

internal fun splitFromRight(text: String, separator: String, limit: Int = -1): List<String> {
    val found = ArrayList<String>()
    var end = text.length
    while (limit < 0 || found.size < limit) {
        val at = if (end < separator.length) -1 else text.lastIndexOf(separator, end - separator.length)
        if (at < 0) break
        found.add(text.substring(at + separator.length, end))
        end = at
    }
    found.add(text.substring(0, end))
    return found.reversed()
}

/** Python's str.replace; room for the result is asked for. */
internal fun Machine.replaceText(text: String, old: String, new: String, count: Int): String {
    if (count == 0) return text
    if (old.isEmpty()) {
        val size = pointCount(text)
        val times = if (count < 0) size + 1 else minOf(count, size + 1)
        room(text.length + times.toLong() * new.length)
        val all = points(text).toList()
        return buildString {
            for (i in 0..size) {
                if (i < times) append(new)
                if (i < size) append(all[i])
            }
        }
    }
    val pieces = split(text, old, count)
    room(text.length + (pieces.size - 1).toLong() * Math.max(0, new.length - old.length))
    return pieces.joinToString(new)
}

/** The number of occurrences that do not overlap. */
internal fun countOf(text: String, part: String): Int {
    if (part.isEmpty()) return pointCount(text) + 1
    var count = 0
    var at = text.indexOf(part)
    while (at >= 0) {
        count++
        at = text.indexOf(part, at + part.length)
    }
    return count
}

internal fun upper(text: String): String = text.uppercase(Locale.ROOT)

internal fun lower(text: String): String = text.lowercase(Locale.ROOT)

/** One code point as the first of a word: `ß` becomes `Ss`. */
internal fun titled(point: Int): String {
    val text = String(Character.toChars(point))
    val simple = Character.toTitleCase(point)
    if (simple != point || Character.isTitleCase(point)) return String(Character.toChars(simple))
    val upper = upper(text)
    if (upper.length <= text.length) return text // in title case already, or without it, as Georgian letters
    if (point == 0x149) return upper
    val first = String(Character.toChars(upper.codePointAt(0)))
    val rest = upper.substring(first.length)
    return first + if (point in 0x1F00..0x1FFF) rest.replace('\u0399', '\u0345') else lower(rest)
}

/** The first code point in title case, the others in lower case. */
internal fun capitalize(text: String): String {
    if (text.isEmpty()) return text
    val point = text.codePointAt(0)
    val lowered = lower(text)
    return titled(point) + lowered.substring(lower(String(Character.toChars(point))).length)
}

/** Maps each code point, given its lower case as it is within [text]: a final sigma depends on what stands around. */
private inline fun mapWithLower(text: String, map: (point: Int, own: String, lower: String) -> String): String {
    val lowered = lower(text)
    var at = 0
    val found = StringBuilder()
    for (own in points(text)) {
        val end = at + lower(own).length
        found.append(map(own.codePointAt(0), own, lowered.substring(at, end)))
        at = end
    }
    return found.toString()
}

/** Title case after each code point that has no case. */
internal fun title(text: String): String {
    var inWord = false
    return mapWithLower(text) { point, _, lower ->
        val mapped = if (inWord) lower else titled(point)
        inWord = isCased(point)
        mapped
    }
}

internal fun swapCase(text: String): String = mapWithLower(text) { point, own, lower ->
    if (Character.isUpperCase(point)) {
        lower
    } else if (Character.isLowerCase(point)) {
        upper(own)
    } else {
        own
    }
}

/** Unicode's full case folding. */
internal fun caseFold(text: String): String = points(text).joinToString("") {
    when (val point = it.codePointAt(0)) {
        0x131, in 0x13A0..0x13F5 -> it
        0x1E9E -> "ss"
        in 0x13F8..0x13FD -> upper(it)
        in 0xAB70..0xABBF -> String(Character.toChars(point - 0xAB70 + 0x13A0))
        else -> points(upper(it)).joinToString("") { lower(it) }
    }
}

internal fun isCased(point: Int): Boolean =
    Character.isUpperCase(point) || Character.isLowerCase(point) || Character.isTitleCase(point)
