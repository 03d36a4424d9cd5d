package dev.smolship.core.generate

import dev.smolship.core.Refusal
import dev.smolship.core.Vectors
import dev.smolship.core.flag
import dev.smolship.core.ids
import dev.smolship.core.json.Json
import dev.smolship.core.number
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class SamplerTest {
    @Test
    fun `tokens are picked as Python picks them`() = Vectors.each("sampling") { case ->
        val logits = case.need("logits").items("logits").map { it.number().toFloat() }.toFloatArray()
        val text = case.need("text").ids().toSet()
        if (case.flag("error")) {
            assertThrows(Refusal::class.java) { Sampler(sampling(case)) { 0.5 }.pick(logits, text) }
            return@each
        }
        val uniforms = case.need("uniforms").items("uniforms").map { it.real("uniform") }.iterator()
        val sampler = Sampler(sampling(case), uniforms::next)
        val picks = case.need("picks").ids().toList()
        assertEquals(picks, picks.map { sampler.pick(logits, text) })
        assertTrue("a number was not taken", !uniforms.hasNext())
    }

    @Test
    fun `a seed draws NumPy's numbers`() {
        // numpy.random.default_rng(SEED).random(3)
        val known = mapOf(
            0L to listOf(0.6369616873214543, 0.2697867137638703, 0.04097352393619469),
            123456789L to listOf(0.02771273928251694, 0.9067000554840227, 0.8813935546997342),
            (1L shl 40) + 7 to listOf(0.829812891829413, 0.25530515834910417, 0.15379071585298754),
        )
        for ((seed, numbers) in known) {
            val random = Pcg64(seed)
            assertEquals(numbers, List(3) { random.next() })
        }
    }

    @Test
    fun `a penalty makes small negative logits smaller, too`() {
        val sampler = Sampler(Sampling(repetitionPenalty = 2.0))
        assertEquals(1, sampler.pick(floatArrayOf(-0.5f, -0.6f), setOf(0)))
    }

    @Test
    fun `the number 0 picks no token of weight 0`() {
        val masked = floatArrayOf(Float.NEGATIVE_INFINITY, 1f)
        assertEquals(1, Sampler(Sampling(temperature = 1.0)) { 0.0 }.pick(masked))
    }

    @Test
    fun `the largest of many weights are found where the first few do not reach top_p`() {
        val logits = FloatArray(100_000) { (it * 7919 % 100_000) / 1e5f }
        val sampler = Sampler(Sampling(temperature = 10.0, topP = 0.9)) { 0.999999 }
        val picked = sampler.pick(logits)
        assertTrue("rank ${logits[picked]}", logits[picked] in 0.08f..0.13f)
    }

    private fun sampling(case: Json.Object): Sampling {
        val given = case.need("sampling").objectOf("sampling")

        fun number(name: String) = given.need(name).real(name)
        return Sampling(
            number("temperature"),
            number("top_p"),
            given.need("top_k").whole("top_k").toInt(),
            number("min_p"),
            number("repetition_penalty"),
        )
    }
}
