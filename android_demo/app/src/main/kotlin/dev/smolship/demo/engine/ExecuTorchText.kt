package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Ending
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import org.pytorch.executorch.extension.llm.LlmCallback
import org.pytorch.executorch.extension.llm.LlmGenerationConfig
import org.pytorch.executorch.extension.llm.LlmModule
import java.io.File

/**
 * ExecuTorch's own runner for language models, which has a tokenizer. It samples by temperature alone, and looks neither
 * at the end of a cache that is larger than one prefill nor at a limit of new tokens: both are held here.
 *
 * @property ends the stop tokens, by their texts
 */
class ExecuTorchText(program: File, tokenizer: File, override val capacity: Int, private val ends: Map<String, Int>) :
    TextEngine {
    private val module =
        guarded("open ${program.name}") { LlmModule(program.path, tokenizer.path, BY_CALL).apply { load() } }
    private val text = StringBuilder() // all texts and answers
    private var held = 0 // tokens in the cache
    private var whole = true // whether these are all of the text

    override fun generate(text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending {
        if (sampling != Sampling(temperature = sampling.temperature)) {
            throw Refusal("ExecuTorch's runner samples by temperature alone", sampling, "no other setting")
        }
        this.text.append(text)
        var prompt = text
        if (!whole) { // an answer that was broken off leaves its last token out of the cache: all is fed again
            guarded("begin anew") { module.resetContext() }
            held = 0
            prompt = this.text.toString()
        }
        val answer = Reading(module, ends, maxTokens, sink)
        val config =
            LlmGenerationConfig.create()
                .echo(false)
                .seqLen(capacity - held) // of the prompt and the answer
                .temperature(sampling.temperature.toFloat())
                .build()
        whole = false
        try {
            guarded("answer; is the conversation longer than $capacity tokens?") {
                module.generate(prompt, config, answer)
            }
        } catch (refusal: Refusal) {
            this.text.setLength(this.text.length - text.length)
            throw refusal
        }
        answer.failure?.let { throw it }
        this.text.append(answer.said)
        held += answer.fed
        whole = answer.end == End.STOP
        return answer.ending(held >= capacity)
    }

    override fun reset() {
        guarded("begin anew") { module.resetContext() }
        text.setLength(0)
        held = 0
        whole = true
    }

    override fun close() = module.close()

    private companion object {
        const val BY_CALL = -1f // the temperature is each call's
    }
}

/** One answer as the runner tells it: pieces of whole characters, which may be more than one token each. */
private class Reading(
    private val module: LlmModule,
    private val ends: Map<String, Int>,
    private val maxPieces: Int?,
    private val sink: (String) -> Boolean,
) : LlmCallback {
    val said = StringBuilder()
    var end: End? = null
        private set
    var failure: Throwable? = null
        private set
    private val start = System.nanoTime()
    private var first = 0L
    private var last = 0L
    private var pieces = 0
    private var stopId: Int? = null
    private var stats: Json.Object? = null

    /** Tokens that the runner put into its cache. */
    val fed get() = (count("prompt_tokens") ?: 0) + (count("generated_tokens") ?: pieces)

    override fun onResult(result: String) {
        if (end != null) return module.stop() // again: the runner forgets a stop during the first token
        last = System.nanoTime()
        if (first == 0L) first = last
        stopId = ends[result]
        if (stopId != null) return finish(End.STOP)
        said.append(result)
        pieces++
        val more =
            try {
                sink(result)
            } catch (error: Exception) { // not through native code
                failure = error
                false
            }
        if (!more) {
            finish(End.INTERRUPTED)
        } else if (pieces == maxPieces) {
            finish(End.MAX_TOKENS)
        }
    }

    override fun onStats(stats: String) {
        this.stats =
            try {
                Json.read(stats) as? Json.Object
            } catch (error: JsonError) {
                null
            }
    }

    override fun onError(errorCode: Int, message: String) {
        failure = Refusal("ExecuTorch failed", "error $errorCode: $message")
    }

    private fun finish(why: End) {
        end = why
        module.stop()
    }

    /** How it ended; the context is full where nothing else ended it. */
    fun ending(full: Boolean): Ending {
        val steps = count("generated_tokens") ?: maxOf(0, pieces - 1)
        val seconds = (last - first) / NANOS
        return Ending(
            end ?: if (full) End.CONTEXT else End.INTERRUPTED,
            count("prompt_tokens"),
            if (end == End.STOP) steps else steps + minOf(1, pieces),
            if (first == 0L) null else (first - start) / NANOS,
            if (steps > 0 && seconds > 0) steps / seconds else null,
            stopId,
        )
    }

    private fun count(name: String): Int? = (stats?.get(name) as? Json.Whole)?.value?.toInt()

    private companion object {
        const val NANOS = 1e9
    }
}
