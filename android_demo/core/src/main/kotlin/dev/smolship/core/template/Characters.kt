package dev.smolship.core.template

import java.text.Normalizer

// Python's questions about characters. Kinds come from the platform's Unicode tables.

private inline fun everyPoint(text: String, test: (Int) -> Boolean): Boolean {
    var at = 0
    while (at < text.length) {
        val point = text.codePointAt(at)
        if (!test(point)) return false
        at += Character.charCount(point)
    }
    return true
}

private inline fun all(text: String, test: (Int) -> Boolean): Boolean = text.isNotEmpty() && everyPoint(text, test)

internal fun isAlpha(text: String): Boolean = all(text, Character::isLetter)

internal fun isDecimal(text: String): Boolean = all(text, Character::isDigit)

internal fun isDigit(text: String): Boolean = all(text, ::isDigitPoint)

internal fun isNumeric(text: String): Boolean = all(text, ::isNumericPoint)

internal fun isAlnum(text: String): Boolean = all(text, ::isAlnumPoint)

internal fun isAlnumPoint(point: Int): Boolean = Character.isLetter(point) || isNumericPoint(point)

internal fun isSpace(text: String): Boolean = all(text, ::isSpace)

internal fun isAscii(text: String): Boolean = text.all { it.code < 0x80 }

internal fun isPrintable(text: String): Boolean = everyPoint(text) { isPrintable(it) }

internal fun isPrintable(point: Int): Boolean = when (Character.getType(point).toByte()) {
    Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
    Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR,
    -> false
    Character.SPACE_SEPARATOR -> point == ' '.code
    else -> true
}

internal fun isIdentifier(text: String): Boolean =
    text.isNotEmpty() && startsIdentifier(text.codePointAt(0)) && everyPoint(text) { continuesIdentifier(it) }

private fun normalized(point: Int): String =
    Normalizer.normalize(String(Character.toChars(point)), Normalizer.Form.NFKC)

/** Unicode's XID_Start: what begins an identifier, in the form NFKC too. */
private fun startsIdentifier(point: Int): Boolean {
    if (point == '_'.code) return true
    val form = normalized(point)
    return Character.isUnicodeIdentifierStart(point) &&
        form.isNotEmpty() &&
        Character.isUnicodeIdentifierStart(form.codePointAt(0)) &&
        everyPoint(form) { isPart(it) }
}

private fun continuesIdentifier(point: Int): Boolean =
    isPart(point) && (point < 0x80 || everyPoint(normalized(point)) { isPart(it) })

private fun isPart(point: Int): Boolean =
    Character.isUnicodeIdentifierPart(point) && !Character.isIdentifierIgnorable(point)

/** Whether there are cased characters and all of them are lower case. */
internal fun isLower(text: String): Boolean =
    everyPoint(text) { !Character.isUpperCase(it) && !Character.isTitleCase(it) } &&
        !everyPoint(text) { !Character.isLowerCase(it) }

internal fun isUpper(text: String): Boolean =
    everyPoint(text) { !Character.isLowerCase(it) && !Character.isTitleCase(it) } &&
        !everyPoint(text) { !Character.isUpperCase(it) }

internal fun isTitle(text: String): Boolean {
    var inWord = false
    var found = false
    val right = everyPoint(text) {
        val begins = Character.isUpperCase(it) || Character.isTitleCase(it)
        val stands = if (begins) !inWord else !Character.isLowerCase(it) || inWord
        inWord = begins || Character.isLowerCase(it)
        found = found || begins
        stands
    }
    return right && found
}

/** The digits that are no decimal digits: superscripts, circled digits and the like. */
private fun isDigitPoint(point: Int): Boolean = Character.isDigit(point) ||
    when (point) {
        0xB2, 0xB3, 0xB9, 0x19DA, 0x2070, 0x24EA, 0x24FF, in 0x1369..0x1371, in 0x2074..0x2079, in 0x2080..0x2089,
        in 0x2460..0x2468, in 0x2474..0x247C, in 0x2488..0x2490, in 0x24F5..0x24FD, in 0x2776..0x277E,
        in 0x2780..0x2788, in 0x278A..0x2792, in 0x10A40..0x10A43, in 0x10E60..0x10E68, in 0x11052..0x1105A,
        in 0x1F100..0x1F10A,
        -> true
        else -> false
    }

/** Numbers written as ideographs, which are letters. */
private const val IDEOGRAPHS =
    "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍" +
        "弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零參拾兩零六陸什𠀁𠁤𠃢𠄡𠤪𠦃𠦌𠦜𠫪𠫽𠬙𢎐𢦘𣬛𦉭" +
        "廾"

private fun isNumericPoint(point: Int): Boolean = when (Character.getType(point).toByte()) {
    Character.DECIMAL_DIGIT_NUMBER, Character.LETTER_NUMBER, Character.OTHER_NUMBER -> true
    Character.OTHER_LETTER -> IDEOGRAPHS.indexOf(String(Character.toChars(point))) >= 0
    else -> isDigitPoint(point)
}
