package dev.smolship.core

/**
 * What the core does not do, for whoever reads it on a screen: what is wrong, what was got, what was expected, what to do
 * about it.
 */
class Refusal(val what: String, got: Any? = null, expected: Any? = null, val todo: String? = null) : Exception() {
    val got: String? = got?.let { clip(it.toString()) }
    val expected: String? = expected?.let { clip(it.toString()) }

    override val message: String
        get() =
            listOfNotNull(
                what,
                got?.let { "  got:      $it" },
                expected?.let { "  expected: $it" },
                todo?.let { "  to do:    $it" },
            ).joinToString("\n")

    companion object {
        private const val LONGEST = 400

        /** One printable line: the text may come from an untrusted file. */
        fun clip(text: String): String {
            val line = String(CharArray(minOf(text.length, LONGEST)) { if (text[it].isISOControl()) ' ' else text[it] })
            return if (text.length > LONGEST) line.dropLast(1) + "…" else line
        }
    }
}

/** The work was ended by whoever watched it. */
class Cancelled : Exception("cancelled")
