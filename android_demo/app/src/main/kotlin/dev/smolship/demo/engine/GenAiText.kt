package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Ending
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine

/**
 * Text by ONNX Runtime GenAI. Its Java interface shows no logits: it samples by itself.
 *
 * A generator that goes on after an answer leaves the answer's last token out of its cache, since that was chosen and
 * never fed. So it is rewound to what was fed, and gets that token again in front of the next text.
 */
class GenAiText(private val model: GeneratingModel, override val capacity: Int, private val stopIds: Set<Int>) :
    TextEngine {
    private var generator: TokenGenerator? = null
    private var made: Sampling? = null // how the generator samples
    private val held = ArrayList<Int>() // tokens of all texts and answers
    private var fed = 0 // of these, in the generator's cache

    override fun generate(text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending {
        if (sampling.minP > 0) throw Refusal("ONNX Runtime GenAI does not know min_p", sampling.minP, "0")
        val ids = guarded("encode the text") { model.encode(text) }
        if (held.size + ids.size > capacity) {
            throw Refusal(
                "the conversation is longer than the context",
                "${held.size + ids.size} tokens",
                "at most $capacity",
                "begin a new chat, or export with a larger --context",
            )
        }
        return guarded("answer") { answer(ids, maxTokens, sampling, sink) }
    }

    private fun answer(ids: IntArray, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending {
        val start = System.nanoTime()
        val times = ArrayList<Double>()
        val generator = generatorFor(sampling)
        ids.forEach(held::add)
        val new = held.subList(fed, held.size).toIntArray()
        generator.append(new)
        fed = held.size
        val before = held.size
        val stream = model.stream()
        var end = End.MAX_TOKENS
        var stopId: Int? = null
        while (maxTokens == null || held.size - before < maxTokens) {
            if (held.size == capacity) {
                end = End.CONTEXT
                break
            }
            val token = generator.next()
            times.add((System.nanoTime() - start) / NANOS)
            fed = held.size // the step fed all tokens but the one that it chose
            if (token in stopIds) {
                end = End.STOP
                stopId = token
                break
            }
            held.add(token)
            if (!sink(stream(token))) {
                end = End.INTERRUPTED
                break
            }
        }
        generator.rewind(fed)
        val rate = if (times.size > 1) (times.size - 1) / (times.last() - times.first()) else null
        return Ending(end, new.size, held.size - before, times.firstOrNull(), rate, stopId)
    }

    /** The generator that samples so. Another way of sampling is another generator, which is fed everything again. */
    private fun generatorFor(sampling: Sampling): TokenGenerator {
        generator?.let { if (sampling == made) return it }
        forget()
        return model.generator(sampling).also {
            generator = it
            made = sampling
        }
    }

    private fun forget() {
        generator?.close()
        generator = null
        fed = 0
    }

    override fun reset() {
        held.clear()
        fed = 0
        guarded("begin anew") { generator?.rewind(0) }
    }

    override fun close() {
        forget()
        model.close()
    }

    private companion object {
        const val NANOS = 1e9
    }
}
