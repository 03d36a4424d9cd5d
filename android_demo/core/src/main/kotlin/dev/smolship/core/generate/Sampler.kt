package dev.smolship.core.generate

import dev.smolship.core.Refusal
import java.util.PriorityQueue
import kotlin.math.exp
import kotlin.math.min
import kotlin.random.Random

/** Draws tokens as [sampling] says; each draw takes one of the [uniform] numbers in [0, 1). */
class Sampler(
    private val sampling: Sampling,
    private val uniform: () -> Double = sampling.seed?.let { Pcg64(it)::next } ?: Random.Default::nextDouble,
) {
    /** A token id, given the [logits] of all and the tokens that the text [has] already. */
    fun pick(logits: FloatArray, has: Set<Int> = emptySet()): Int {
        val greatest = argmax(logits)
        if (!logits[greatest].isFinite()) {
            throw Refusal("the model's logits are not numbers", logits[greatest], todo = "run `smolship parity`")
        }
        val penalized = has.isNotEmpty() && sampling.repetitionPenalty != 1.0
        val moved = if (penalized) penalized(logits, has) else logits
        val best = if (penalized) argmax(moved) else greatest
        if (sampling.temperature == 0.0) return best
        val temperature = sampling.temperature.coerceIn(TINY.toDouble(), Float.MAX_VALUE.toDouble()).toFloat()
        val weights = FloatArray(moved.size) { exp(((moved[it] - moved[best]) / temperature).toDouble()).toFloat() }
        val all = sampling.topK == 0 && sampling.topP == 1.0
        val kept = if (all) IntArray(weights.size) { it } else largest(weights, sampling.topK, sampling.topP)
        val least = sampling.minP.toFloat()
        return drawn(weights, if (least > 0) kept.filter { weights[it] >= least }.toIntArray() else kept)
    }

    private fun drawn(weights: FloatArray, kept: IntArray): Int {
        val sums = sums(weights, kept)
        val target = uniform() * sums.last()
        return kept[min(firstIndex(sums) { it > target }, kept.size - 1)]
    }

    private fun penalized(logits: FloatArray, has: Set<Int>): FloatArray {
        val moved = logits.copyOf()
        val limit = Float.MAX_VALUE.toDouble()
        for (id in has) {
            val logit = logits[id].toDouble()
            val other = if (logit > 0) logit / sampling.repetitionPenalty else logit * sampling.repetitionPenalty
            moved[id] = other.coerceIn(-limit, limit).toFloat()
        }
        return moved
    }

    private companion object {
        const val TINY = 1.17549435e-38f // the smallest normal one
    }
}

/** The index of the greatest, the lowest of several; of a NaN where there is one. */
fun argmax(values: FloatArray): Int {
    var best = 0
    for (i in values.indices) {
        if (values[i].isNaN()) return i
        if (values[i] > values[best]) best = i
    }
    return best
}

private const val FEW = 256
private const val MORE = 16

/**
 * Ids of the [topK] largest weights, then of as many of these as reach the share [topP], largest first, of equal ones the
 * lowest id. A full sort of 128k weights takes longer than a small model's forward, so only the largest few are sorted,
 * more of them where they do not reach [topP].
 */
private fun largest(weights: FloatArray, topK: Int, topP: Double): IntArray {
    val limit = if (topK in 1 until weights.size) topK else weights.size
    val total = if (limit < weights.size) null else weights.sumOf { it.toDouble() }
    var count = if (total == null) limit else min(limit, FEW)
    while (true) {
        val ids = first(weights, count)
        val sums = sums(weights, ids)
        val wanted = topP * (total ?: sums.last())
        if (count == limit || sums.last() >= wanted) {
            return if (topP == 1.0) ids else ids.copyOf(min(firstIndex(sums) { it >= wanted } + 1, ids.size))
        }
        count = min(count * MORE, limit)
    }
}

/** Ids of the [count] largest weights in order. A weight and its id make one number that orders them. */
private fun first(weights: FloatArray, count: Int): IntArray {
    fun key(id: Int) = (weights[id].toRawBits().toLong() shl Int.SIZE_BITS) or (Int.MAX_VALUE - id).toLong()
    val queue = PriorityQueue<Long>(count)
    var least = Long.MIN_VALUE
    for (id in weights.indices) {
        val key = key(id)
        if (queue.size == count && key <= least) continue
        if (queue.size == count) queue.poll()
        queue.add(key)
        least = queue.peek()!!
    }
    val keys = queue.toLongArray()
    keys.sort()
    return IntArray(count) { Int.MAX_VALUE - keys[count - 1 - it].toInt() }
}

/** Sums of the weights of [ids] up to each. */
private fun sums(weights: FloatArray, ids: IntArray): DoubleArray {
    var sum = 0.0
    return DoubleArray(ids.size) {
        sum += weights[ids[it]]
        sum
    }
}

/** The first index of ascending [values] that is [wanted]; their number where none is. */
private fun firstIndex(values: DoubleArray, wanted: (Double) -> Boolean): Int {
    var low = 0
    var high = values.size
    while (low < high) {
        val middle = (low + high) ushr 1
        if (wanted(values[middle])) high = middle else low = middle + 1
    }
    return low
}
