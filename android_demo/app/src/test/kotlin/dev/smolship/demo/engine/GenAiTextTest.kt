package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Sampling
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class GenAiTextTest {
    private val model = Toy()
    private val engine = GenAiText(model, capacity = 30, stopIds = setOf('.'.code))
    private val said = ArrayList<String>()

    private fun ask(text: String, maxTokens: Int? = null, until: Int = Int.MAX_VALUE, sampling: Sampling = Sampling()) =
        engine.generate(text, maxTokens, sampling) {
            said += it
            said.size < until
        }

    private val cache get() = model.generators.last().cache.joinToString("") { it.toChar().toString() }

    @Test fun eachTurnFeedsOnlyWhatIsNew() {
        model.answers += listOf("Hi.", "Yes.")
        val ending = ask("Q1 ")
        assertEquals(End.STOP, ending.end)
        assertEquals(2, ending.tokens)
        assertEquals('.'.code, ending.stopId)
        assertEquals(3, ask("Q2 ").promptTokens)
        assertEquals(listOf("H", "i", "Y", "e", "s"), said)
        assertEquals("Q1 HiQ2 Yes", cache)
        assertEquals(1, model.generators.size)
    }

    @Test fun noTokenIsLostAfterAnAnswerThatWasBrokenOff() {
        model.answers += listOf("One two.", "Yes.")
        assertEquals(End.INTERRUPTED, ask("Q1 ", until = 2).end)
        assertEquals(4, ask("Q2 ").promptTokens) // with the last token of the answer before
        assertEquals("Q1 OnQ2 Yes", cache)
    }

    @Test fun limitsEndAnAnswer() {
        model.answers += listOf("One two.", "x".repeat(40))
        val ending = ask("Q1 ", maxTokens = 3)
        assertEquals(End.MAX_TOKENS, ending.end)
        assertEquals(3, ending.tokens)
        assertEquals(End.CONTEXT, ask("Q2 ").end)
        assertEquals(30, 3 + 3 + 3 + (said.size - 3))
        assertThrows(Refusal::class.java) { ask("Q3 ") }
    }

    @Test fun anotherSamplingFeedsAllAgain() {
        model.answers += listOf("Hi.", "Yes.")
        ask("Q1 ")
        ask("Q2 ", sampling = Sampling(0.5))
        assertEquals(2, model.generators.size)
        assertEquals("Q1 HiQ2 Yes", cache)
        assertEquals(true, model.generators.first().closed)
    }

    @Test fun aResetForgets() {
        model.answers += listOf("Hi.", "Yes.")
        ask("Q1 ")
        engine.reset()
        ask("Q2 ")
        assertEquals("Q2 Yes", cache)
    }

    @Test fun whatItDoesNotKnowIsRefused() {
        assertThrows(Refusal::class.java) { ask("Q1 ", sampling = Sampling(0.5, minP = 0.1)) }
    }

    /** A character is a token. */
    private class Toy : GeneratingModel {
        val answers = ArrayList<String>()
        val generators = ArrayList<Running>()
        private var turn = -1
        private var at = 0

        override fun encode(text: String): IntArray {
            turn++
            at = 0
            return IntArray(text.length) { text[it].code }
        }

        override fun stream(): (Int) -> String = { it.toChar().toString() }

        override fun generator(sampling: Sampling) = Running().also { generators += it }

        override fun close() = Unit

        /** As GenAI 0.18 behaves: a token that was chosen is fed by the next choice; an append leaves a gap there. */
        inner class Running : TokenGenerator {
            val cache = ArrayList<Int>()
            var closed = false
            private var chosen: Int? = null

            override fun append(ids: IntArray) {
                if (chosen != null) cache.add('?'.code)
                chosen = null
                ids.forEach(cache::add)
            }

            override fun next(): Int {
                chosen?.let(cache::add)
                return answers[turn][at++].code.also { chosen = it }
            }

            override fun rewind(to: Int) {
                check(to <= cache.size) { "rewound to $to of ${cache.size}" }
                while (cache.size > to) cache.removeAt(cache.size - 1)
                chosen = null
            }

            override fun close() {
                closed = true
            }
        }
    }
}
