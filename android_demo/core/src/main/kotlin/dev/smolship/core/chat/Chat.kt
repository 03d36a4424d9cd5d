package dev.smolship.core.chat

import dev.smolship.core.Refusal
import dev.smolship.core.generate.Clock
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Generated
import dev.smolship.core.generate.Generation
import dev.smolship.core.generate.Sampler
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextStream
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.generate.Tokenizer
import dev.smolship.core.generate.goBack

/**
 * Several turns over one engine. Each turn renders the whole conversation, as the template wants it by then (some drop
 * the thinking of earlier turns), and compares its tokens with those in the cache: that is rewound to where they part,
 * and fed the rest. Nothing else may use the engine meanwhile.
 *
 * @property stopIds tokens that end an answer
 * @property sampling of the turns that follow
 */
class Chat(
    private val engine: TokenEngine,
    private val tokenizer: Tokenizer,
    private val rendering: Rendering,
    private val stopIds: Set<Int>,
    var sampling: Sampling = Sampling(),
    messages: List<Message> = emptyList(),
    private val clock: Clock = System::nanoTime,
) : Conversation {
    private val turns = ArrayList(messages)
    private val cached = ArrayList<Int>() // what the engine was fed; it holds them up to its position

    override val messages: List<Message> get() = turns

    /** Tokens of the last turn's prompt that were in the cache already. */
    var reused = 0
        private set

    override fun ask(text: String, maxTokens: Int?, sink: (String) -> Boolean): Answer {
        val question = Message("user", text)
        val ids = prompt(turns + question)
        val feed = rewound(ids)
        val before = ids.copyOf(reused)
        val generation = Generation(engine, feed, maxTokens, stopIds, Sampler(sampling), before, clock)
        val stream = TextStream()
        try {
            val generated = generation.run { token ->
                cached.add(token)
                sink(stream.push(tokenizer.bytes(token)))
            }
            sink(stream.finish())
            return Answer(decoded(generated), generated.ending)
        } finally {
            val generated = generation.generated
            if (generated.ids.isNotEmpty() || generated.end == End.STOP) {
                turns += listOf(question, Message("assistant", decoded(generated)))
            }
        }
    }

    override fun restore(messages: List<Message>) {
        turns.clear()
        turns.addAll(messages)
    }

    /** The tokens of a conversation up to where the answer begins. */
    private fun prompt(messages: List<Message>): IntArray {
        val ids = tokenizer.encode(rendering.render(messages))
        if (ids.size > engine.capacity) {
            throw Refusal(
                "the conversation is longer than the context",
                "${ids.size} tokens",
                "at most ${engine.capacity}",
                "ask less at once, begin a new conversation, or export with a larger --context",
            )
        }
        if (ids.isEmpty()) throw Refusal("the chat template renders nothing", "${messages.size} messages")
        return ids
    }

    /** Rewinds the cache to what it shares with [ids]; what to feed, at least the last token. */
    private fun rewound(ids: IntArray): IntArray {
        val held = minOf(engine.position, cached.size, ids.size)
        val shared = (0 until held).firstOrNull { cached[it] != ids[it] } ?: held
        reused = minOf(shared, ids.size - 1)
        if (reused < engine.earliest) reused = 0 // the engine has forgotten so much
        engine.goBack(reused)
        cached.clear()
        ids.forEach(cached::add)
        return ids.copyOfRange(reused, ids.size)
    }

    private fun decoded(generated: Generated): String {
        val stream = TextStream()
        return generated.ids.joinToString("") { stream.push(tokenizer.bytes(it)) } + stream.finish()
    }
}
