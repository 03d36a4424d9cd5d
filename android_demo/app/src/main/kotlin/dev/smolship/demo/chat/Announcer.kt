package dev.smolship.demo.chat

/** Cuts a growing answer into what a screen reader says: whole sentences, each once. */
class Announcer {
    private var spoken = 0

    /** Sentences of [answer] that have become complete since the last call; null where none has. */
    fun next(answer: String): String? {
        if (answer.length < spoken) spoken = 0 // another answer
        val end = ENDS.findAll(answer, spoken).lastOrNull()?.range?.last ?: return null
        return take(answer, end + 1)
    }

    /** What was not said of an answer that is over, which the next call begins after. */
    fun rest(answer: String): String? = take(answer, answer.length).also { spoken = 0 }

    private fun take(answer: String, end: Int): String? {
        val piece = answer.substring(minOf(spoken, end), end).trim()
        spoken = end
        return piece.ifEmpty { null }
    }

    private companion object {
        val ENDS = Regex("[.!?。！？؟]+[\"'”’)]*\\s|\n")
    }
}
