package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Sampling
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.pytorch.executorch.extension.llm.LlmCallback

class ExecuTorchTextTest {
    private val runner = Runner()
    private val engine = ExecuTorchText(runner, capacity = 40, ends = mapOf("<|end|>" to 2))
    private val said = ArrayList<String>()

    private fun ask(text: String, maxTokens: Int? = null, until: Int = Int.MAX_VALUE) =
        engine.generate(text, maxTokens, Sampling()) {
            said += it
            said.size < until
        }

    @Test fun theStopTokenEndsAnAnswerAndIsNotPartOfIt() {
        runner.answers += listOf("Hi", "!", "<|end|>")
        val ending = ask("Q1 ")
        assertEquals(listOf("Hi", "!"), said)
        assertEquals(End.STOP, ending.end)
        assertEquals(2, ending.stopId)
        assertEquals(2, ending.tokens)
        assertEquals(3, ending.promptTokens)
    }

    @Test fun theNextTextIsAppendedAfterAWholeAnswer() {
        runner.answers += listOf("Hi", "<|end|>")
        runner.answers += listOf("Yes", "<|end|>")
        ask("Q1 ")
        ask("Q2 ")
        assertEquals("Q1 HiQ2 Yes", runner.cache.joinToString(""))
        assertEquals(0, runner.resets)
    }

    @Test fun allIsFedAgainAfterAnAnswerThatWasBrokenOff() {
        runner.answers += listOf("One", "two", "three", "<|end|>")
        runner.answers += listOf("Yes", "<|end|>")
        val ending = ask("Q1 ", until = 2)
        assertEquals(End.INTERRUPTED, ending.end)
        assertEquals(listOf("One", "two"), said)
        ask("Q2 ")
        assertEquals("Q1 OnetwoQ2 Yes", runner.cache.joinToString(""))
        assertEquals(1, runner.resets)
    }

    @Test fun aStopDuringTheFirstTokenIsSaidAgain() {
        runner.answers += listOf("One", "two", "three", "four", "<|end|>")
        val ending = ask("Q1 ", until = 1)
        assertEquals(End.INTERRUPTED, ending.end)
        assertEquals(listOf("One"), said)
        assertEquals(2, runner.told)
    }

    @Test fun aLimitOfTokensEndsAnAnswer() {
        runner.answers += listOf("One", "two", "three", "<|end|>")
        assertEquals(End.MAX_TOKENS, ask("Q1 ", maxTokens = 2).end)
        assertEquals(listOf("One", "two"), said)
    }

    @Test fun aFullCacheEndsAnAnswerAndRefusesAPrompt() {
        runner.answers += List(60) { "x" }
        val ending = ask("Q".repeat(30))
        assertEquals(End.CONTEXT, ending.end)
        assertEquals(11, said.size)
        val refusal = assertThrows(Refusal::class.java) { ask("Q") }
        assertTrue(refusal.what.contains("longer than the context"))
    }

    @Test fun otherFailuresAreNoFullCache() {
        runner.failure = IllegalStateException("error 0x21")
        val refusal = assertThrows(Refusal::class.java) { ask("Q1 ") }
        assertTrue(refusal.got!!.contains("0x21"))
        runner.failure = null
        runner.answers += listOf("Yes", "<|end|>")
        ask("Q2 ")
        assertEquals("Q2 Yes", runner.cache.joinToString(""))
    }

    @Test fun whatTheReaderThrowsComesBackToIt() {
        runner.answers += listOf("One", "two", "<|end|>")
        assertThrows(IllegalArgumentException::class.java) {
            engine.generate("Q1 ", null, Sampling()) { throw IllegalArgumentException() }
        }
    }

    @Test fun aResetForgets() {
        runner.answers += listOf("Hi", "<|end|>")
        runner.answers += listOf("Yes", "<|end|>")
        ask("Q1 ")
        engine.reset()
        ask("Q2 ")
        assertEquals("Q2 Yes", runner.cache.joinToString(""))
    }

    @Test fun otherSamplingIsRefused() {
        assertThrows(Refusal::class.java) { engine.generate("Q", null, Sampling(0.7, topP = 0.9)) { true } }
    }

    /** As ExecuTorch 1.5.1's runner behaves: a character of a prompt is a token, and so is each piece. */
    private class Runner : LlmRunner {
        val answers = ArrayList<List<String>>()
        val cache = ArrayList<String>()
        var failure: Exception? = null
        var resets = 0
        var told = 0
        private var stopped = false

        override fun generate(prompt: String, tokens: Int, temperature: Float, callback: LlmCallback) {
            failure?.let { throw it }
            feed(prompt.map { it.toString() })
            val answer = answers.removeAt(0)
            tell(callback, answer[0])
            stopped = false // what was said during the first token is forgotten
            var steps = 0
            for (i in 1 until minOf(answer.size, tokens)) {
                feed(listOf(answer[i - 1]))
                steps++
                tell(callback, answer[i])
                if (stopped || answer[i] == "<|end|>") break
            }
            callback.onStats("""{"prompt_tokens": ${prompt.length}, "generated_tokens": $steps, "model": "x"}""")
        }

        private fun feed(tokens: List<String>) {
            check(cache.size + tokens.size <= 40) { "Generation failed" }
            cache += tokens
        }

        private fun tell(callback: LlmCallback, piece: String) {
            told++
            callback.onResult(piece)
        }

        override fun stop() {
            stopped = true
        }

        override fun reset() {
            resets++
            cache.clear()
        }

        override fun close() = Unit
    }
}
