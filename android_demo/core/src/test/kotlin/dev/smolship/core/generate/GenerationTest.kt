package dev.smolship.core.generate

import dev.smolship.core.Refusal
import dev.smolship.core.Vectors
import dev.smolship.core.flag
import dev.smolship.core.ids
import dev.smolship.core.json.Json
import dev.smolship.core.wholeOrNull
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Test

class GenerationTest {
    @Test
    fun `answers end as Python's do`() = Vectors.each("stops") { case ->
        val script = case.need("ids").items("ids").map { if (it == Json.Null) null else it.whole("id").toInt() }
        val engine = ScriptedEngine(script, case.wholeOrNull("capacity")!!)
        val prompt = IntArray(case.wholeOrNull("prompt")!!) { 1 }
        val kept = ArrayList<Int>()
        val breaks = case.wholeOrNull("breaks_after")

        fun run(): Generated {
            val stops = case.need("stops").ids().toSet()
            return Generation(engine, prompt, case.wholeOrNull("max_tokens"), stops, Sampler(Sampling())).run {
                kept.add(it)
                kept.size != breaks
            }
        }
        if (case.flag("error")) {
            assertThrows(Refusal::class.java) { run() }
        } else {
            val generated = run()
            assertEquals(case.need("end").text("end"), generated.end.key)
            assertEquals(case.wholeOrNull("stop_id"), generated.stopId)
            assertEquals(kept, generated.ids)
        }
        assertEquals(case.need("kept").ids().toList(), kept)
        assertEquals(case.wholeOrNull("position"), engine.position)
    }

    @Test
    fun `times are those of the clock`() {
        var now = 0L
        val engine = ScriptedEngine(listOf(5, 6, 7, 2), 64) { now += 500_000_000 }
        val generation = Generation(engine, intArrayOf(1), null, setOf(2), Sampler(Sampling()), clock = { now })
        val ending = generation.run { true }.ending
        assertEquals(listOf(0.5, 1.0, 1.5, 2.0), generation.generated.times)
        assertEquals(Ending(End.STOP, 1, 3, 0.5, 2.0, 2), ending)
    }

    @Test
    fun `there are no times before the first token, and no rate before the second`() {
        val engine = ScriptedEngine(listOf(null), 64)
        val broken = Generation(engine, intArrayOf(1), null, emptySet(), Sampler(Sampling()))
        assertThrows(Refusal::class.java) { broken.run { true } }
        assertNull(broken.generated.ending.ttftSeconds)
        val one = Generation(ScriptedEngine(listOf(5), 64), intArrayOf(1), 1, emptySet(), Sampler(Sampling()))
        assertNull(one.run { true }.ending.decodeTokensPerSecond)
    }

    @Test
    fun `ids that the engine does not know do not reach it`() {
        val engine = ScriptedEngine(listOf(5), 64)
        for (strange in listOf(-1, ScriptedEngine.VOCAB)) {
            assertThrows(Refusal::class.java) { engine.feed(intArrayOf(1, strange)) }
        }
        assertEquals(0, engine.position)
    }
}

/** Puts the largest logit on the tokens of a script in turn; null: NaN. */
class ScriptedEngine(
    script: List<Int?>,
    override val capacity: Int,
    override val vocab: Int = VOCAB,
    private val works: () -> Unit = {},
) : TokenEngine {
    constructor(script: List<Int?>, capacity: Int, works: () -> Unit) : this(script, capacity, VOCAB, works)

    private val script = script.iterator()
    override var position = 0

    override fun forward(ids: IntArray): FloatArray {
        works()
        position += ids.size
        val wanted = script.next() ?: return FloatArray(vocab) { Float.NaN }
        return FloatArray(vocab) { if (it == wanted) 1f else 0f }
    }

    override fun rewind(to: Int) {
        position = to
    }

    override fun close() = Unit

    companion object {
        const val VOCAB = 50
    }
}
