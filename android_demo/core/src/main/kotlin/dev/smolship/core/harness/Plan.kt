package dev.smolship.core.harness

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.sha256
import dev.smolship.core.generate.Sampling
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.json.JsonLimits

private const val MOST_THREADS = 1024
private const val MOST = 1 shl 20 // calls, repeats, tokens of an answer
private const val MOST_STRINGS = 1 shl 12
private const val LONGEST_STRING = 1 shl 13 // bytes of UTF-8
private const val ALL_STRINGS = 1 shl 20

/** Tokens to feed, and the ids whose logits are wanted at some of their positions. */
class Text internal constructor(val ids: IntArray, val at: IntArray, val wanted: Table) {
    init {
        if (ids.isEmpty() || ids.any { it < 0 } || wanted.least < 0) {
            throw Refusal("a plan's text has no tokens, or negative ones")
        }
        val ascending = (1 until at.size).all { at[it - 1] < at[it] }
        val inside = at.isEmpty() || (at.first() >= 0 && at.last() < ids.size && ascending)
        if (!inside || at.size != wanted.rows) {
            throw Refusal("a plan's text wants logits at positions that it has not, or not in order")
        }
    }

    /**
     * The ids wanted at each of the positions [start] to [stop]; none where nothing is said of some. With how many are
     * wanted of each, as there may be no position.
     */
    fun rows(start: Int, stop: Int): Pair<List<IntArray>, Int> {
        val first = at.binarySearch(start).let { if (it < 0) -it - 1 else it }
        val count = stop - start
        val all = first + count <= at.size && (0 until count).all { at[first + it] == start + it }
        return if (all) List(count) { wanted.row(first + it) } to wanted.columns else List(count) { IntArray(0) } to 0
    }

    internal val greatest: Int get() = maxOf(ids.maxOrNull() ?: -1, wanted.greatest)
}

enum class Look { NONE, LAST, ALL }

/**
 * Feeds the tokens [start] to [stop] of a text.
 *
 * @property look the positions whose logits are looked at
 * @property rewind go back to that position of the cache first
 * @property greedy feed the largest logit's token each time in place of the text's, and look at all
 * @property exact with a digest of each position's logits
 * @property preset fill the cache up to that position with the plan's
 * @property stage what it is for, to show
 */
data class Call(
    val stage: String,
    val text: Int,
    val start: Int,
    val stop: Int,
    val look: Look,
    val rewind: Int?,
    val greedy: Boolean,
    val exact: Boolean,
    val preset: Int?,
)

/**
 * Phases over the first text, each once uncounted and then [repeats] times.
 *
 * @property prompts lengths, fed until the first token is chosen
 * @property depths tokens in the cache before [tokens] are decoded greedily
 * @property warmups before all phases, until two in a row agree or that many were made
 * @property sustained seconds of decoding behind all phases
 */
class Timing(
    val prompts: IntArray,
    val depths: IntArray,
    val tokens: Int,
    val repeats: Int,
    val warmups: Int,
    val sustained: Int,
)

/** What is to be answered to the first text. */
class Asked(val maxTokens: Int, val stopIds: IntArray, val sampling: Sampling)

/**
 * What an engine is asked, as runtime/smolship/runtime/plan.py has it. [text] is what its digest is taken of: the record
 * as Python writes it, whatever the file's spaces and order.
 */
class Plan internal constructor(
    val purpose: String,
    val target: String,
    val engine: String,
    val info: Json.Object,
    val threads: Int,
    val arithmetic: String,
    val texts: List<Text>,
    val calls: List<Call>,
    val layers: Int,
    val cacheLayers: List<Int>,
    val timing: Timing?,
    val loads: Boolean,
    val answer: Asked?,
    val strings: List<String>?,
    text: String,
) {
    val digest: String = sha256(text)

    /** The largest token id that is fed or wanted; -1 for none. */
    val greatest: Int get() = texts.maxOfOrNull { it.greatest } ?: -1

    init {
        val problems = ArrayList<String>()
        if (threads !in 1..MOST_THREADS) problems.add("$threads threads")
        if (layers !in 0..MOST) problems.add("$layers layers")
        if (calls.size > MOST) problems.add("${calls.size} calls")
        cacheLayers.forEachIndexed { i, parts -> if (parts !in 1..2) problems.add("the cache of layer $i") }
        calls.forEachIndexed { i, call -> if (!can(i, call)) problems.add("call $i") }
        if (timing != null && !canTime(timing)) problems.add("its timing")
        if (answer != null && !canAnswer(answer)) problems.add("its answer")
        if (strings != null && !canTokenize(strings)) problems.add("its strings")
        if (problems.isNotEmpty()) {
            throw Refusal("a plan asks what cannot be done", problems.take(5).joinToString(", "))
        }
    }

    /** Whether the call keeps to its text; how much the cache holds, the engine knows. */
    private fun can(i: Int, call: Call): Boolean {
        val text = texts.getOrNull(call.text) ?: return false
        val preset = call.preset == null || (call.preset >= 0 && cacheLayers.isNotEmpty() && call.rewind == null)
        val bare = call.rewind == null && call.preset == null
        return call.start in 0 until call.stop && call.stop <= text.ids.size && (call.rewind ?: 0) >= 0 && preset &&
            (!call.greedy || (i > 0 && call.look == Look.ALL && bare))
    }

    private fun canTime(timing: Timing): Boolean {
        val longest = texts.firstOrNull()?.ids?.size ?: 0
        return timing.prompts.isNotEmpty() && timing.depths.isNotEmpty() &&
            (timing.prompts + timing.depths).all { it in 1..longest } &&
            timing.tokens in 1..MOST && timing.repeats in 1..MOST &&
            timing.warmups in 0..MOST && timing.sustained in 0..MOST
    }

    private fun canAnswer(answer: Asked): Boolean =
        texts.size == 1 && calls.isEmpty() && layers == 0 && timing == null &&
            answer.maxTokens in 1..MOST && answer.stopIds.all { it >= 0 }

    private fun canTokenize(strings: List<String>): Boolean {
        val sizes = strings.map { it.toByteArray().size }
        return sizes.size in 1..MOST_STRINGS && sizes.max() <= LONGEST_STRING && sizes.sum() <= ALL_STRINGS &&
            answer == null
    }

    companion object {
        /** Bytes of a file; the host's plans for an app take far less. */
        const val LIMIT = 64 shl 20

        /** The plan that the file's [bytes] are. */
        fun read(bytes: ByteArray): Plan {
            val json = try {
                Json.read(bytes, JsonLimits(size = LIMIT))
            } catch (error: JsonError) {
                throw Refusal("plan is not valid JSON", error.message, "a JSON object", "make it again")
            }
            return PlanReader(json).plan()
        }
    }
}
