package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Ending
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import org.pytorch.executorch.extension.llm.LlmCallback

/**
 * Text by ExecuTorch's runner, which samples by temperature alone, tells the stop token's text, forgets to stop during the
 * first token, and fails where the cache is full.
 *
 * @property ends the stop tokens, by their texts
 */
class ExecuTorchText(private val runner: LlmRunner, override val capacity: Int, private val ends: Map<String, Int>) :
    TextEngine {
    private val text = StringBuilder() // all texts and answers
    private var held = 0 // tokens in the cache
    private var whole = true // whether these are all of the text

    override fun generate(text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending {
        if (sampling != Sampling(temperature = sampling.temperature)) {
            throw Refusal("ExecuTorch's runner samples by temperature alone", sampling, "no other setting")
        }
        var prompt = text
        if (!whole) { // an answer that was broken off leaves its last token out of the cache: all is fed again
            reset(this.text.toString())
            prompt = this.text.toString() + text
        }
        whole = false
        val answer = Reading(runner, ends, maxTokens, sink)
        val full = fed(prompt, sampling, answer)
        this.text.append(text).append(answer.said)
        held += answer.fed
        whole = answer.end == End.STOP
        return answer.ending(full)
    }

    /** Has the runner answer; whether the cache was full before the answer ended. */
    private fun fed(prompt: String, sampling: Sampling, answer: Reading): Boolean {
        try {
            guarded("answer") { runner.generate(prompt, capacity, sampling.temperature.toFloat(), answer) }
        } catch (refusal: Refusal) {
            // A token is at least a byte: with fewer bytes than the cache has room for, it was something else.
            val mayBeFull = held + prompt.toByteArray().size + answer.pieces >= capacity
            if (!mayBeFull) throw refusal
            if (answer.pieces > 0) return true
            val todo = "begin a new chat, or export with a larger --context"
            throw Refusal("the conversation is longer than the context", refusal.got, "at most $capacity tokens", todo)
        }
        answer.failure?.let { throw it }
        return answer.end == null
    }

    private fun reset(text: String) {
        guarded("begin anew") { runner.reset() }
        this.text.setLength(0)
        this.text.append(text)
        held = 0
        whole = true
    }

    override fun reset() = reset("")

    override fun close() = runner.close()
}

/** One answer as the runner tells it: pieces of whole characters, which may be more than one token each. */
private class Reading(
    private val runner: LlmRunner,
    private val ends: Map<String, Int>,
    private val maxPieces: Int?,
    private val sink: (String) -> Boolean,
) : LlmCallback {
    val said = StringBuilder()
    var pieces = 0
        private set
    var end: End? = null
        private set
    var failure: Throwable? = null
        private set
    private val start = System.nanoTime()
    private var first = 0L
    private var last = 0L
    private var stopId: Int? = null
    private var stats: Json.Object? = null

    /** Tokens that the runner put into its cache. */
    val fed get() = (count("prompt_tokens") ?: 0) + (count("generated_tokens") ?: pieces)

    override fun onResult(result: String) {
        if (end != null) return runner.stop() // again
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
            } catch (_: JsonError) {
                null
            }
    }

    override fun onError(errorCode: Int, message: String) {
        failure = Refusal("ExecuTorch failed", "error $errorCode: $message")
    }

    private fun finish(why: End) {
        end = why
        runner.stop()
    }

    fun ending(full: Boolean): Ending {
        // The runner's steps are the tokens after the first; a stop token's counts.
        val steps = count("generated_tokens") ?: maxOf(0, pieces - 1)
        val seconds = (last - first) / NANOS
        return Ending(
            if (full) End.CONTEXT else checkNotNull(end),
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
