package dev.smolship.demo.chat

import dev.smolship.core.chat.Message
import dev.smolship.core.generate.Ending

/** What the chat is doing. */
enum class Phase {
    EMPTY, // no bundle is chosen
    UNLOADED, // one is chosen; its model is opened with the next question
    OPENING,
    READY,
    ANSWERING,
}

/**
 * All that the chat's screen shows.
 *
 * @property choice the bundle and its target
 * @property messages turns that are over
 * @property question and the answer to it so far, while it comes
 * @property pace of the answer while it comes
 * @property ending of the last answer
 * @property notes what of the bundle's settings the engine cannot do
 * @property problem why the last thing that was asked for did not happen
 * @property unanswered a question that got no word of an answer, to be asked again
 * @property cut whether the last answer ended because the app was ended
 */
data class ChatState(
    val phase: Phase = Phase.EMPTY,
    val choice: Choice? = null,
    val messages: List<Message> = emptyList(),
    val question: String? = null,
    val partial: String = "",
    val pace: Pace? = null,
    val ending: Ending? = null,
    val notes: List<String> = emptyList(),
    val problem: String? = null,
    val unanswered: String? = null,
    val cut: Boolean = false,
) {
    val tokensPerSecond get() = ending?.decodeTokensPerSecond ?: pace?.perSecond

    val ttftSeconds get() = ending?.ttftSeconds ?: pace?.firstSeconds

    /** The turns, and the one that is under way as far as it came. */
    val turns: List<Message>
        get() {
            val asked = question ?: return messages
            return messages + Message("user", asked) + Message("assistant", partial)
        }

    /** What is kept on the disk. */
    val kept: Kept get() = Kept(choice, turns, question != null)

    /** This state with [turns] that are over, and the question under way among them or given back. */
    fun over(turns: List<Message>) = copy(
        messages = turns,
        question = null,
        partial = "",
        unanswered = question?.takeIf { turns.size <= messages.size },
    )

    companion object {
        /** The state that an app begins with which another process has left behind. */
        fun of(kept: Kept): ChatState {
            val phase = if (kept.choice == null) Phase.EMPTY else Phase.UNLOADED
            val whole = ChatState(phase, kept.choice, kept.messages)
            if (!kept.open || kept.messages.size < 2) return whole
            val (question, answer) = kept.messages.takeLast(2)
            if (answer.content.isNotEmpty()) return whole.copy(cut = true)
            return whole.copy(messages = kept.messages.dropLast(2), unanswered = question.content)
        }
    }
}

/** How fast an answer comes: seconds until its first piece, and pieces a second after that; a piece is mostly a token. */
data class Pace(val firstSeconds: Double, val perSecond: Double?)

/** A bundle, by its folder's name, one of its targets, and whether a model that can think before it answers does so. */
data class Choice(val bundle: String, val target: String, val thinking: Boolean = true)
