package dev.smolship.demo.engine

import dev.smolship.core.generate.Sampling
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class RecommendedTest {
    private val warm = Sampling(0.6, topP = 0.95, topK = 20, repetitionPenalty = 1.1)

    @Test fun whatARunnerCannotDoIsLeftOutAndSaid() {
        val (kept, note) = BundleOpener.sampling("executorch", warm)
        assertEquals(Sampling(0.6), kept)
        assertTrue(note!!.endsWith("top_k 20, top_p 0.95, repetition_penalty 1.1."))
        val (other, minP) = BundleOpener.sampling("onnx", warm.copy(minP = 0.05))
        assertEquals(warm, other)
        assertTrue(minP!!.endsWith("min_p 0.05."))
    }

    @Test fun nothingIsSaidWhereNothingIsLost() {
        assertEquals(warm to null, BundleOpener.sampling("onnx", warm))
        val greedy = Sampling(topK = 50, topP = 0.9)
        val (kept, note) = BundleOpener.sampling("executorch", greedy)
        assertEquals(Sampling(), kept)
        assertNull(note)
    }
}
