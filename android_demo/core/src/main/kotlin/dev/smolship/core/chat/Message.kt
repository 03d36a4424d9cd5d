package dev.smolship.core.chat

import dev.smolship.core.generate.Ending

/** One turn of a conversation; [role] is `system`, `user` or `assistant`. */
data class Message(val role: String, val content: String)

/** What a chat template makes of a conversation, up to where the next answer begins. */
fun interface Rendering {
    fun render(messages: List<Message>): String
}

/** What was answered, and how that ended. */
data class Answer(val text: String, val ending: Ending)

/** A conversation over one engine, whichever kind. One thread at a time. */
interface Conversation {
    /** The turns so far, the system prompt first. */
    val messages: List<Message>

    /**
     * Answers [text]; each piece, which may be empty, is given to [sink], which returns false to break the answer off.
     * Question and answer join the conversation as far as the answer came; one without a token leaves no trace. Where
     * the conversation does not fit into the context, or the template refuses it, that is refused and nothing has
     * changed.
     */
    fun ask(text: String, maxTokens: Int? = null, sink: (String) -> Boolean): Answer

    /** Begins anew with [messages]: those of a conversation that was kept, or the system prompt alone. */
    fun restore(messages: List<Message>)
}
