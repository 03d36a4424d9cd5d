package dev.smolship.demo.engine

import ai.onnxruntime.genai.GenAI
import ai.onnxruntime.genai.Generator
import ai.onnxruntime.genai.GeneratorParams
import ai.onnxruntime.genai.Model
import ai.onnxruntime.genai.Tokenizer
import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Ending
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine
import java.io.File

/**
 * ONNX Runtime GenAI on the bundle's `onnx` folder. Its Java interface shows no logits: it samples by itself.
 *
 * A generator that goes on after an answer leaves the answer's last token out of its cache, since that was chosen and
 * never fed. So it is rewound to what was fed, and gets that token again in front of the next text.
 */
class GenAiText(folder: File, override val capacity: Int, private val stopIds: Set<Int>) : TextEngine {
    private val model = guarded("open ${folder.name}") {
        GenAI.setTelemetry(false)
        Model(folder.path)
    }
    private val tokenizer = guarded("read its tokenizer") { Tokenizer(model) }
    private var generator: Generator? = null
    private var made: Sampling? = null // how the generator samples
    private val held = ArrayList<Int>() // tokens of all texts and answers
    private var fed = 0 // of these, in the generator's cache

    override fun generate(text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending {
        val ids = guarded("encode the text") { tokenizer.encode(text).use { it.getSequence(0) } }
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
        generator.appendTokens(new)
        fed = held.size
        val before = held.size
        var end = End.MAX_TOKENS
        var stopId: Int? = null
        tokenizer.createStream().use { stream ->
            while (maxTokens == null || held.size - before < maxTokens) {
                if (held.size == capacity) {
                    end = End.CONTEXT
                    break
                }
                generator.generateNextToken()
                val token = generator.getLastTokenInSequence(0)
                times.add((System.nanoTime() - start) / NANOS)
                fed = held.size // the step fed all tokens but the one that it chose
                if (token in stopIds) {
                    end = End.STOP
                    stopId = token
                    break
                }
                held.add(token)
                if (!sink(stream.decode(token))) {
                    end = End.INTERRUPTED
                    break
                }
            }
        }
        generator.rewindTo(fed.toLong())
        val rate = if (times.size > 1) (times.size - 1) / (times.last() - times.first()) else null
        return Ending(end, new.size, held.size - before, times.firstOrNull(), rate, stopId)
    }

    /** The generator that samples so. Another way of sampling is another generator, which is fed everything again. */
    private fun generatorFor(sampling: Sampling): Generator {
        generator?.let { if (sampling == made) return it }
        if (sampling.minP > 0) throw Refusal("ONNX Runtime GenAI does not know min_p", sampling.minP, "0")
        forget()
        GeneratorParams(model).use { params ->
            params.setSearchOption("max_length", capacity.toDouble())
            params.setSearchOption("do_sample", sampling.temperature > 0)
            if (sampling.temperature > 0) {
                params.setSearchOption("temperature", sampling.temperature)
                params.setSearchOption("top_k", sampling.topK.toDouble())
                params.setSearchOption("top_p", sampling.topP)
                sampling.seed?.let { params.setSearchOption("random_seed", it.toDouble()) }
            }
            params.setSearchOption("repetition_penalty", sampling.repetitionPenalty)
            return Generator(model, params).also {
                generator = it
                made = sampling
            }
        }
    }

    private fun forget() {
        generator?.close()
        generator = null
        made = null
        fed = 0
    }

    override fun reset() {
        held.clear()
        fed = 0
        guarded("begin anew") { generator?.rewindTo(0) }
    }

    override fun close() {
        forget()
        tokenizer.close()
        model.close()
    }

    private companion object {
        const val NANOS = 1e9
    }
}
