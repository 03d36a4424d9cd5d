package dev.smolship.core.generate

import dev.smolship.core.Refusal

/**
 * What was generated so far.
 *
 * @property promptTokens that were fed first
 */
class Generated(val promptTokens: Int) {
    /** The answer, without the stop token. */
    val ids = ArrayList<Int>()

    /** Seconds from the start of the prefill until each id was known, the stop token's last. */
    val times = ArrayList<Double>()
    var end = End.INTERRUPTED
        internal set
    var stopId: Int? = null
        internal set

    val ending: Ending
        get() {
            val rate = if (times.size > 1) (times.size - 1) / (times.last() - times.first()) else null
            return Ending(end, promptTokens, ids.size, times.firstOrNull(), rate, stopId)
        }
}

/** Nanoseconds since some moment. */
typealias Clock = () -> Long

/**
 * Feeds [prompt] to an engine after what it holds, and then one token after the other.
 *
 * @property maxTokens null: until a stop token or the end of the context
 * @property before the tokens that the engine holds already; the repetition penalty counts them
 */
class Generation(
    private val engine: TokenEngine,
    private val prompt: IntArray,
    private val maxTokens: Int?,
    private val stopIds: Set<Int>,
    private val sampler: Sampler,
    private val before: IntArray = IntArray(0),
    private val clock: Clock = System::nanoTime,
) {
    val generated = Generated(prompt.size)

    init {
        if (maxTokens != null && maxTokens < 1) throw Refusal("max_tokens is out of range", maxTokens, "1 or more")
    }

    /**
     * Generates until an end is reached, or [sink], which is given each token, returns false. The last token is never
     * fed: the engine ends just before it.
     */
    fun run(sink: (Int) -> Boolean): Generated {
        val start = clock()
        val text = HashSet<Int>()
        before.forEach(text::add)
        prompt.forEach(text::add)
        var feed = prompt
        val found = generated
        while (maxTokens == null || found.ids.size < maxTokens) {
            if (found.ids.isNotEmpty() && engine.position == engine.capacity) {
                found.end = End.CONTEXT
                return found
            }
            val token = sampler.pick(engine.feed(feed), text)
            found.times.add((clock() - start) / NANOS)
            if (token in stopIds) {
                found.end = End.STOP
                found.stopId = token
                return found
            }
            found.ids.add(token)
            text.add(token)
            if (!sink(token)) return found
            feed = intArrayOf(token)
        }
        found.end = End.MAX_TOKENS
        return found
    }

    private companion object {
        const val NANOS = 1e9
    }
}

/** [TokenEngine.forward] of ids that were looked at; the engine is as it was where they are refused. */
fun TokenEngine.feed(ids: IntArray): FloatArray {
    if (ids.isEmpty()) throw Refusal("there are no token ids to feed", "none", "1 or more")
    if (position + ids.size > capacity) {
        throw Refusal(
            "the prompt is longer than the context",
            "${ids.size} tokens after $position",
            "at most ${capacity - position}",
            "shorten it, or export with a larger --context",
        )
    }
    val strange = ids.firstOrNull { it !in 0 until vocab }
    if (strange != null) throw Refusal("a token id is not in the vocabulary", strange, "0 to ${vocab - 1}")
    val logits = forward(ids)
    if (logits.size != vocab) throw Refusal("the engine gave other logits than its vocabulary", logits.size, vocab)
    return logits
}

/** [TokenEngine.rewind] to a position that was looked at. */
fun TokenEngine.goBack(to: Int) {
    if (to != 0 && to !in earliest..position) {
        throw Refusal("cannot rewind to there", to, "0, or a position from $earliest to $position")
    }
    rewind(to)
}
