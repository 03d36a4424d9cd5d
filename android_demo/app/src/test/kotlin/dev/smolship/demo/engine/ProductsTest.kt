package dev.smolship.demo.engine

import org.junit.Assert.assertEquals
import org.junit.Test

class ProductsTest {
    private val old = "processor\t: 0\nFeatures\t: fp asimd aes crc32\n"
    private val new = "processor\t: 1\nFeatures\t: fp asimd aes asimddp fphp\n"

    @Test fun theLeastAbleCoreDecides() {
        assertEquals("activations in int8, by rows (KleidiAI)", products(new + new, kleidiai = true))
        assertEquals("activations in int8, by blocks of 32", products(new, kleidiai = false))
        assertEquals("activations in float32", products(new + old, kleidiai = true))
        assertEquals("activations in float32", products("", kleidiai = true))
    }
}
