package dev.smolship.core.template

import java.time.LocalDateTime
import java.time.temporal.IsoFields

private val DAYS = listOf("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
private val MONTHS =
    listOf(
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    )
private const val SHORT = 3
private const val NOON = 12
private const val DAYS_A_WEEK = 7
private const val CENTURY = 100

private fun pad(value: Int, width: Int = 2, fill: Char = '0'): String = value.toString().padStart(width, fill)

/** C's strftime in the C locale, for a time without a zone. */
internal fun strftime(time: LocalDateTime, format: String): String {
    val out = StringBuilder()
    var at = 0
    while (at < format.length) {
        val char = format[at++]
        if (char != '%') {
            out.append(char)
            continue
        }
        var directive = format.getOrNull(at++) ?: unsupported("a date format that ends with %")
        val noPadding = directive == '-'
        if (noPadding) directive = format.getOrNull(at++) ?: unsupported("the date format %-")
        val text = directive(time, directive) ?: unsupported("the date format %$directive")
        out.append(if (noPadding) unpadded(directive, text) else text)
    }
    return out.toString()
}

/** glibc's flag `-`: numbers without zeros or spaces before them. */
private fun unpadded(directive: Char, text: String): String = if (directive in "CdegGHIjklmMSuUVwWyY") {
    text.trimStart(' ', '0').ifEmpty { "0" }
} else {
    unsupported("the date format %-$directive")
}

private fun directive(time: LocalDateTime, directive: Char): String? {
    val day = time.dayOfWeek.value // 1 is Monday
    val yearDay = time.dayOfYear
    val hour = if (time.hour % NOON == 0) NOON else time.hour % NOON
    return when (directive) {
        'a' -> DAYS[day - 1].take(SHORT)
        'A' -> DAYS[day - 1]
        'b', 'h' -> MONTHS[time.monthValue - 1].take(SHORT)
        'B' -> MONTHS[time.monthValue - 1]
        'c' -> strftime(time, "%a %b %e %H:%M:%S %Y")
        'C' -> pad(time.year / CENTURY)
        'd' -> pad(time.dayOfMonth)
        'D', 'x' -> strftime(time, "%m/%d/%y")
        'e' -> pad(time.dayOfMonth, fill = ' ')
        'f' -> pad(time.nano / 1000, 6)
        'F' -> strftime(time, "%Y-%m-%d")
        'g' -> pad(time.get(IsoFields.WEEK_BASED_YEAR) % CENTURY)
        'G' -> time.get(IsoFields.WEEK_BASED_YEAR).toString()
        'H' -> pad(time.hour)
        'I' -> pad(hour)
        'j' -> pad(yearDay, 3)
        'k' -> pad(time.hour, fill = ' ')
        'l' -> pad(hour, fill = ' ')
        'm' -> pad(time.monthValue)
        'M' -> pad(time.minute)
        'n' -> "\n"
        'p' -> if (time.hour < NOON) "AM" else "PM"
        'P' -> if (time.hour < NOON) "am" else "pm"
        'r' -> strftime(time, "%I:%M:%S %p")
        'R' -> strftime(time, "%H:%M")
        'S' -> pad(time.second)
        't' -> "\t"
        'T', 'X' -> strftime(time, "%H:%M:%S")
        'u' -> day.toString()
        'U' -> pad((yearDay + DAYS_A_WEEK - 1 - day % DAYS_A_WEEK) / DAYS_A_WEEK)
        'V' -> pad(time.get(IsoFields.WEEK_OF_WEEK_BASED_YEAR))
        'w' -> (day % DAYS_A_WEEK).toString()
        'W' -> pad((yearDay + DAYS_A_WEEK - 1 - (day + DAYS_A_WEEK - 1) % DAYS_A_WEEK) / DAYS_A_WEEK)
        'y' -> pad(time.year % CENTURY)
        'Y' -> time.year.toString()
        'z', 'Z' -> "" // a time without a zone
        '%' -> "%"
        else -> null
    }
}
