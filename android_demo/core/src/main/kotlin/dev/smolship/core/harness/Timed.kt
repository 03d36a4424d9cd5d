package dev.smolship.core.harness

import dev.smolship.core.generate.Clock
import dev.smolship.core.generate.Generation
import dev.smolship.core.generate.Sampler
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.generate.feed
import dev.smolship.core.generate.goBack
import dev.smolship.core.json.Json

private const val NANOS = 1e9

/**
 * Raw times, in milliseconds, a value or a row a repeat.
 *
 * @property ttft by the prompt's length: until the first token of the answer is chosen
 * @property gaps by depth of the cache: between one token and the next
 * @property sustained pairs of the seconds since the start of decoding on and on, and tokens/s since the pair before
 */
internal class Times(
    val ttft: Map<Int, List<Double>>,
    val gaps: Map<Int, List<List<Double>>>,
    val warmups: List<Double>,
    val sustained: List<List<Double>>,
) {
    fun toJson(): Json = Json.Object(
        "ttft_ms" to Json.Object(ttft.entries.associate { (length, times) -> "$length" to reals(times) }),
        "gaps_ms" to Json.Object(gaps.entries.associate { (depth, rows) -> "$depth" to Json.Array(rows.map(::reals)) }),
        "warmups_ms" to reals(warmups),
        "sustained" to Json.Array(sustained.map(::reals)),
    )
}

internal fun reals(values: List<Double>): Json = Json.Array(values.map { Json.Real(it) })

/** Times an open engine, each phase once uncounted and then so often as [timing] says. */
internal class Stopwatch(
    private val engine: TokenEngine,
    private val ids: IntArray,
    private val timing: Timing,
    private val clock: Clock,
) {
    fun times(): Times {
        val shallow = timing.depths.min()
        val warmups = warmedUp(shallow)
        val rounds = timing.repeats + 1
        val ttft = LinkedHashMap<Int, List<Double>>()
        for (length in timing.prompts) ttft[length] = List(rounds) { prefill(length) }.drop(1)
        val gaps = LinkedHashMap<Int, List<List<Double>>>()
        for (depth in timing.depths) {
            fill(depth)
            gaps[depth] = List(rounds) { decode(depth) }.drop(1)
        }
        return Times(ttft, gaps, warmups, sustained(shallow))
    }

    private fun warmedUp(shallow: Int): List<Double> {
        val found = ArrayList<Double>()
        while (found.size < timing.warmups && !agree(found)) {
            val start = seconds()
            prefill(timing.prompts.min())
            fill(shallow)
            decode(shallow)
            found.add(1000 * (seconds() - start))
        }
        return found
    }

    private fun sustained(shallow: Int): List<List<Double>> {
        if (timing.sustained > 0) fill(shallow)
        val found = ArrayList<List<Double>>()
        val start = seconds()
        var now = start
        while (now - start < timing.sustained) {
            val before = now
            val count = decode(shallow).size
            now = seconds()
            found.add(listOf(now - start, count / (now - before)))
        }
        return found
    }

    private fun seconds() = clock() / NANOS

    private fun prefill(length: Int): Double {
        engine.goBack(0)
        return 1000 * generated(ids.copyOf(length), 1).first()
    }

    private fun fill(depth: Int) {
        engine.goBack(0)
        engine.feed(ids.copyOf(depth))
    }

    /** Milliseconds between tokens; the cache holds [depth] tokens when the first of these begins. */
    private fun decode(depth: Int): List<Double> {
        engine.goBack(depth - 1)
        val times = generated(intArrayOf(ids[depth - 1]), timing.tokens + 1)
        return times.zipWithNext { one, next -> 1000 * (next - one) }
    }

    private fun generated(prompt: IntArray, tokens: Int): List<Double> =
        Generation(engine, prompt, tokens, emptySet(), Sampler(Sampling()), clock = clock).run { true }.times
}
