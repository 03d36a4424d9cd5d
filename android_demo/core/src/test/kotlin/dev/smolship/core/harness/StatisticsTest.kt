package dev.smolship.core.harness

import dev.smolship.core.Vectors
import dev.smolship.core.flag
import dev.smolship.core.generate.Generated
import dev.smolship.core.json.Json
import dev.smolship.core.wholeOrNull
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs

class StatisticsTest {
    @Test
    fun `times are summed up as Python does`() {
        val kinds = HashSet<String>()
        Vectors.each("statistics") { case ->
            val kind = case.need("kind").text("kind")
            kinds.add(kind)
            when (kind) {
                "quantiles" ->
                    for (percent in listOf(50, 95, 99)) near(case, "p$percent", quantile(values(case), percent / 100.0))
                "spread" -> {
                    val spread = Spread.of(values(case))
                    near(case, "median", spread.median)
                    near(case, "low", spread.low)
                    near(case, "high", spread.high)
                    assertEquals(case.wholeOrNull("repeats"), spread.repeats)
                }
                "agree" -> assertEquals(case.flag("agree"), agree(values(case)))
                "decode" -> {
                    val rows = case.need("gaps_ms").items("gaps").map { numbers(it) }
                    near(numbers(case.need("tokens_per_s")), rows.map(::decodeTokensPerSecond))
                }
                "prefill" -> {
                    val prompt = case.wholeOrNull("prompt")!!
                    val speeds = numbers(case.need("ttft_ms")).map { prefillTokensPerSecond(prompt, it) }
                    near(numbers(case.need("tokens_per_s")), speeds)
                }
                "answer" -> {
                    val ending = Generated(1).apply { times.addAll(numbers(case.need("times"))) }.ending
                    near(case, "ttft_s", ending.ttftSeconds)
                    near(case, "decode_tokens_per_s", ending.decodeTokensPerSecond)
                }
                else -> throw AssertionError("an unknown kind, $kind")
            }
        }
        assertEquals(6, kinds.size)
    }

    private fun values(case: Json.Object) = numbers(case.need("values"))

    private fun numbers(json: Json) = json.items("numbers").map { it.real("number") }

    private fun near(case: Json.Object, name: String, found: Double?) {
        val expected = case.need(name)
        if (expected == Json.Null) assertEquals(null, found) else near(listOf(expected.real(name)), listOf(found!!))
    }

    private fun near(expected: List<Double>, found: List<Double>) {
        assertEquals(expected.size, found.size)
        expected.zip(found).forEach { (a, b) -> assertTrue("$a, $b", abs(a - b) <= 1e-12 * abs(a)) }
    }
}
