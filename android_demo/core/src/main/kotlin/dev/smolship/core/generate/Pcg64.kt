package dev.smolship.core.generate

import java.math.BigInteger

/**
 * The random numbers of NumPy's `default_rng(seed)`: O'Neill's PCG XSL RR 128/64, seeded through NumPy's SeedSequence. So
 * a seed draws the same tokens as in Python.
 */
class Pcg64(seed: Long) {
    private var state = BigInteger.ZERO
    private val increment: BigInteger

    init {
        val words = stretched(seed)
        increment = wrapped(words.second.shiftLeft(1).setBit(0))
        step()
        state = wrapped(state + words.first)
        step()
    }

    /** The next one in [0, 1), of 53 bits. */
    fun next(): Double {
        step()
        val mixed = state.shiftRight(Long.SIZE_BITS).toLong() xor state.toLong()
        val turn = state.shiftRight(122).toInt()
        return (mixed.rotateRight(turn) ushr 11) * UNIT
    }

    private fun step() {
        state = wrapped(state * MULTIPLIER + increment)
    }

    private companion object {
        val MULTIPLIER = BigInteger("2360ed051fc65da44385df649fccf645", 16)
        const val UNIT = 1.0 / (1L shl 53)
        const val POOL = 4
        const val HALF = 16

        fun wrapped(value: BigInteger): BigInteger = value.and(BigInteger.ONE.shiftLeft(128) - BigInteger.ONE)

        /** SeedSequence: a pool of 4 words of 32 bits that the seed is mixed into; the state and the sequence from it. */
        fun stretched(seed: Long): Pair<BigInteger, BigInteger> {
            var constant = 0x43b0d7e5

            fun hashed(word: Int): Int {
                val started = word xor constant
                constant *= 0x931e8875.toInt()
                val product = started * constant
                return product xor (product ushr HALF)
            }

            fun mixed(a: Int, b: Int): Int {
                val product = 0xca01f9dd.toInt() * a - 0x4973f715 * b
                return product xor (product ushr HALF)
            }
            val words = intArrayOf(seed.toInt(), (seed ushr Int.SIZE_BITS).toInt(), 0, 0)
            val pool = IntArray(POOL) { hashed(words[it]) }
            for (from in 0 until POOL) {
                for (to in 0 until POOL) if (from != to) pool[to] = mixed(pool[to], hashed(pool[from]))
            }
            var other = 0x8b51f9dd.toInt()
            val state = IntArray(2 * POOL) {
                val started = pool[it % POOL] xor other
                other *= 0x58f38ded
                val product = started * other
                product xor (product ushr HALF)
            }
            return number(state, 0) to number(state, POOL)
        }

        /** 128 bits of four words: two of 64 bits, the high one first, each with its low word first. */
        fun number(words: IntArray, at: Int): BigInteger = intArrayOf(1, 0, 3, 2).fold(BigInteger.ZERO) { sum, i ->
            sum.shiftLeft(Int.SIZE_BITS) + BigInteger.valueOf(words[at + i].toLong() and 0xffffffffL)
        }
    }
}
