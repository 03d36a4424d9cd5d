package dev.smolship.core.harness

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import dev.smolship.core.generate.Clock
import dev.smolship.core.generate.Generation
import dev.smolship.core.generate.Sampler
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.generate.argmax
import dev.smolship.core.generate.feed
import dev.smolship.core.generate.goBack

/** Whoever watches the execution of a plan. */
interface Watch {
    /** False ends it with [Cancelled]; asked before each forward. */
    fun goesOn(): Boolean = true

    /** What it is at, [done] of [total]. */
    fun at(stage: String, done: Int, total: Int) = Unit

    /** A token of the answer, as it is chosen. */
    fun token(id: Int) = Unit
}

/**
 * Executes plans as runtime/smolship/runtime/execute.py does. What no engine of an app can do, a preset of the cache, is
 * refused; logits of all positions are those of single tokens, one after the other; keys and values are not shown.
 *
 * @property runtime what the engine is run by, where its name stands for several
 * @property importMs milliseconds that loading the engine's library took, measured by the app
 * @property tokenizer the engine's own, where it has one; closed before the engine is opened
 */
class Executor(
    private val machine: Machine,
    private val clock: Clock = System::nanoTime,
    private val runtime: String = "",
    private val importMs: Double = 0.0,
    private val tokenizer: TokenizerSource? = null,
) {
    /** Has the engine that [open] opens do what [plan] asks; it is closed then. [artifact]: see [artifactDigest]. */
    fun execute(plan: Plan, artifact: String, watch: Watch = object : Watch {}, open: () -> TokenEngine): Result {
        if (plan.calls.any { it.preset != null }) {
            throw Refusal("this engine does not let its cache be written", "a call that presets it", "no presets")
        }
        val answers = Answers()
        answers.before = machine.memory()
        answers.strings = plan.strings?.let { tokenized(it, watch) }
        if (plan.loads) answers.loads = loaded(open)
        open().use { opened ->
            val engine = Watched(opened, watch)
            if (plan.greatest >= engine.vocab) {
                val vocab = "below ${engine.vocab}"
                throw Refusal("the plan has tokens that the model has not", plan.greatest, vocab)
            }
            val start = System.nanoTime()
            call(plan, engine, answers, watch)
            if (plan.timing != null) {
                watch.at("timing", 0, 1)
                answers.times = Stopwatch(engine, plan.texts[0].ids, plan.timing, clock).times()
            }
            if (plan.answer != null) answers.generated = generated(plan, plan.answer, engine, watch)
            answers.after = machine.memory()
            val traits = traits(engine, runtime, tokenizer?.name)
            return answers.result(plan, traits, artifact, machine, (System.nanoTime() - start) / NANOS)
        }
    }

    private fun tokenized(strings: List<String>, watch: Watch): List<Tokens> {
        val source = tokenizer
            ?: throw Refusal("this engine has no tokenizer", "a plan with strings", "none: its traits name none")
        return source.open().use { own ->
            strings.mapIndexed { i, text ->
                if (!watch.goesOn()) throw Cancelled()
                if (i % SOME == 0) watch.at("tokenizer", i, strings.size)
                Tokens.of(text, own)
            }
        }
    }

    /** Opening the artifact and running one token, which engines put work off until; and again. */
    private fun loaded(open: () -> TokenEngine): Loads {
        fun load(): Double {
            val start = System.nanoTime()
            open().use { it.feed(intArrayOf(0)) }
            return (System.nanoTime() - start) / NANOS * 1000
        }
        return Loads(importMs, load(), load())
    }

    private fun call(plan: Plan, engine: TokenEngine, answers: Answers, watch: Watch) {
        var next = -1 // the largest logit's token behind the call before
        plan.calls.forEachIndexed { i, call ->
            watch.at(call.stage, i, plan.calls.size)
            if (call.rewind != null) engine.goBack(call.rewind)
            val text = plan.texts[call.text]
            val first = if (call.look == Look.ALL) call.start else call.stop - if (call.look == Look.LAST) 1 else 0
            val (wanted, columns) = text.rows(first, call.stop)
            val seen = Seen(columns, call.exact)
            answers.seen.add(seen)
            if (call.look == Look.ALL) {
                mustFit(engine, call)
                for (at in call.start until call.stop) {
                    val logits = engine.feed(intArrayOf(if (call.greedy) next else text.ids[at]))
                    seen.add(logits, wanted[at - call.start])
                    next = argmax(logits)
                }
            } else {
                val logits = engine.feed(text.ids.copyOfRange(call.start, call.stop))
                if (call.look == Look.LAST) seen.add(logits, wanted[0])
                next = argmax(logits)
            }
        }
    }

    private fun mustFit(engine: TokenEngine, call: Call) {
        val room = engine.capacity - engine.position
        if (call.stop - call.start > room) {
            throw Refusal("the prompt is longer than the context", "${call.stop - call.start} tokens", "at most $room")
        }
    }

    private fun generated(plan: Plan, asked: Asked, engine: TokenEngine, watch: Watch) = Generation(
        engine,
        plan.texts[0].ids,
        asked.maxTokens,
        asked.stopIds.toSet(),
        Sampler(asked.sampling),
        clock = clock,
    ).run {
        watch.token(it)
        true
    }

    /** An engine whose work can be ended between two forwards. */
    private class Watched(private val engine: TokenEngine, private val watch: Watch) : TokenEngine by engine {
        override fun forward(ids: IntArray): FloatArray {
            if (!watch.goesOn()) throw Cancelled()
            return engine.forward(ids)
        }
    }

    private companion object {
        const val NANOS = 1e9
        const val SOME = 64 // strings between two words of progress
    }
}
