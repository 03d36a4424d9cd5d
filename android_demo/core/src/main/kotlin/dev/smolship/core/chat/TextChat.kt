package dev.smolship.core.chat

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine

/**
 * Several turns over an engine that is fed with text. Where the rendered conversation begins with what the engine holds,
 * only the rest is fed; else the engine begins anew.
 */
class TextChat(
    private val engine: TextEngine,
    private val rendering: Rendering,
    var sampling: Sampling = Sampling(),
    messages: List<Message> = emptyList(),
) : Conversation {
    private val turns = ArrayList(messages)
    private var held = "" // what the engine surely holds

    override val messages: List<Message> get() = turns

    /** Characters of the last turn's prompt that the engine held already. */
    var reused = 0
        private set

    override fun ask(text: String, maxTokens: Int?, sink: (String) -> Boolean): Answer {
        if (maxTokens != null && maxTokens < 1) throw Refusal("max_tokens is out of range", maxTokens, "1 or more")
        val question = Message("user", text)
        val rendered = rendering.render(turns + question)
        if (rendered.isEmpty()) throw Refusal("the chat template renders nothing", "${turns.size + 1} messages")
        val goesOn = held.isNotEmpty() && rendered.startsWith(held) && rendered.length > held.length
        reused = if (goesOn) held.length else 0
        if (!goesOn) engine.reset()
        held = ""
        val said = StringBuilder()
        var ended = false
        try {
            val ending = engine.generate(rendered.drop(reused), maxTokens, sampling) { piece ->
                said.append(piece)
                sink(piece)
            }
            ended = ending.end == End.STOP
            // Of an answer that was broken off the engine may lack the last token, or hold one that was not told.
            if (ended) held = rendered + said
            return Answer(said.toString(), ending)
        } finally {
            if (said.isNotEmpty() || ended) turns += listOf(question, Message("assistant", said.toString()))
        }
    }

    override fun restore(messages: List<Message>) {
        turns.clear()
        turns.addAll(messages)
    }
}
