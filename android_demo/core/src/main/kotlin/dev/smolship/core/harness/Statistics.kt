package dev.smolship.core.harness

import kotlin.math.abs
import kotlin.math.floor

private const val AGREE = 0.05 // two repetitions of a warm machine

/** Whether the last two of the times lie within 5 % of one another. */
fun agree(times: List<Double>): Boolean {
    if (times.size < 2) return false
    val (one, other) = times.takeLast(2)
    return abs(other - one) <= AGREE * minOf(one, other)
}

/** The [share] quantile of values, linear between the two nearest. */
fun quantile(values: List<Double>, share: Double): Double {
    val sorted = values.sorted()
    val place = share * (sorted.size - 1)
    val below = floor(place).toInt()
    val above = minOf(below + 1, sorted.size - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
}

/** The median of some repeats, and the lowest and highest. */
data class Spread(val median: Double, val low: Double, val high: Double, val repeats: Int) {
    companion object {
        fun of(values: List<Double>) = Spread(quantile(values, 0.5), values.min(), values.max(), values.size)
    }
}

/** Tokens a second of decoding with these [gaps] between tokens, in milliseconds. */
fun decodeTokensPerSecond(gaps: List<Double>): Double = 1000 / gaps.average()

/** Tokens a second of a prompt that took [ttft] milliseconds. */
fun prefillTokensPerSecond(prompt: Int, ttft: Double): Double = 1000 * prompt / ttft
