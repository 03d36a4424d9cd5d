package dev.smolship.core.template

import java.text.Normalizer

// Python's questions about characters. Kinds come from the platform's Unicode tables.

private fun all(text: String, test: (Int) -> Boolean): Boolean =
    text.isNotEmpty() && points(text).all { test(it.codePointAt(0)) }

internal fun isAlpha(text: String): Boolean = all(text, Character::isLetter)

internal fun isDecimal(text: String): Boolean = all(text, Character::isDigit)

internal fun isDigit(text: String): Boolean = all(text, ::isDigitPoint)

internal fun isNumeric(text: String): Boolean = all(text, ::isNumericPoint)

internal fun isAlnum(text: String): Boolean = all(text, ::isAlnumPoint)

internal fun isAlnumPoint(point: Int): Boolean = Character.isLetter(point) || isNumericPoint(point)

internal fun isSpace(text: String): Boolean = all(text, ::isSpace)

internal fun isAscii(text: String): Boolean = text.all { it.code < 0x80 }

internal fun isPrintable(text: String): Boolean = points(text).all { isPrintable(it.codePointAt(0)) }

internal fun isPrintable(point: Int): Boolean = when (Character.getType(point).toByte()) {
    Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
    Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR,
    -> false
    Character.SPACE_SEPARATOR -> point == ' '.code
    else -> true
}

internal fun isIdentifier(text: String): Boolean {
    val all = points(text).toList()
    return all.isNotEmpty() && startsIdentifier(all[0]) && all.drop(1).all { continuesIdentifier(it) }
}

/** Unicode's XID_Start: what begins an identifier in the form NFKC too. */
private fun startsIdentifier(point: String): Boolean {
    val forms = points(point + Normalizer.normalize(point, Normalizer.Form.NFKC)).toList()
    val (first, rest) = listOf(forms.take(2), forms.drop(2))
    return first.all { it == "_" || Character.isUnicodeIdentifierStart(it.codePointAt(0)) } && rest.all { isPart(it) }
}

private fun continuesIdentifier(point: String): Boolean =
    points(point + Normalizer.normalize(point, Normalizer.Form.NFKC)).all { isPart(it) }

private fun isPart(point: String): Boolean = point.codePointAt(0).let {
    Character.isUnicodeIdentifierPart(it) && !Character.isIdentifierIgnorable(it)
}

/** Whether there are cased characters and all of them are lower case. */
internal fun isLower(text: String): Boolean = points(text).none { isUpperOrTitle(it.codePointAt(0)) } &&
    points(text).any { Character.isLowerCase(it.codePointAt(0)) }

internal fun isUpper(text: String): Boolean =
    points(text).none { Character.isLowerCase(it.codePointAt(0)) || Character.isTitleCase(it.codePointAt(0)) } &&
        points(text).any { Character.isUpperCase(it.codePointAt(0)) }

internal fun isTitle(text: String): Boolean {
    var inWord = false
    var found = false
    for (each in points(text)) {
        val point = each.codePointAt(0)
        if (isUpperOrTitle(point)) {
            if (inWord) return false
            inWord = true
            found = true
        } else if (Character.isLowerCase(point)) {
            if (!inWord) return false
        } else {
            inWord = false
        }
    }
    return found
}

private fun isUpperOrTitle(point: Int): Boolean = Character.isUpperCase(point) || Character.isTitleCase(point)

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
