package dev.smolship.core.json

import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class JsonTest {
    private fun refused(text: String, limits: JsonLimits = JsonLimits()): String =
        assertThrows(JsonError::class.java) { Json.read(text, limits) }.message!!

    @Test
    fun `what is written is read back, in order, with whole and real numbers apart`() {
        val text = """{"z": [1, 1.0, -0.0, 1e+16, 12345678901234567890], "a": {"é": "\n\u0001\"😀"}, "n": null}"""
        val value = Json.read(text)
        assertEquals(text, value.write())
        assertEquals(Json.Whole(1), (value as Json.Object)["z"]!!.items("z")[0])
        assertEquals(Json.Real(1.0), value["z"]!!.items("z")[1])
        assertEquals(value, Json.read(value.write(indent = 2)))
        assertEquals("[\n  1,\n  {}\n]", Json.read("[1,{}]").write(indent = 2))
    }

    @Test
    fun `what is not JSON is refused`() {
        val wrong =
            listOf(
                "", "[1,]", "{\"a\":1,}", "[1 2]", "01", "1.", "+1", ".5", "1e", "nul", "NaN", "Infinity", "'a'", "\"a",
                "\"\\x\"",
                "\"\\u12g4\"", "\"\\u+123\"", "\"\n\"", "1 1", "{1: 2}", "{\"a\" 1}",
                "\"\\ud800\"", "\"\\udc00\\ud800\"",
                "1e999", "{\"a\":1,\"a\":2}", "[1", "{", "\ufeff1", "-",
            )
        for (text in wrong) refused(text)
        assertEquals("😀", Json.read("\"\\ud83d\\ude00\"").text("it"))
        assertThrows(JsonError::class.java) { Json.read(byteArrayOf(0x22, 0xC3.toByte(), 0x22)) }
    }

    @Test
    fun `limits hold`() {
        assertTrue("deeper than 3" in refused("[[[[1]]]]", JsonLimits(depth = 3)))
        assertTrue("at most 4" in refused("\"abcdef\"", JsonLimits(size = 4)))
        assertTrue("more than 5" in refused("123456", JsonLimits(digits = 5)))
        refused("[".repeat(100_000))
    }

    @Test
    fun `fields of another kind are refused by name`() {
        val value = Json.read("""{"a": 1.5, "b": 9223372036854775808}""") as Json.Object
        for (wrong in listOf<(Json.Object) -> Any>(
            { it.need("c") },
            { it.need("a").whole("a") },
            { it.need("b").whole("b") },
            { it.need("a").text("a") },
        )) {
            assertThrows(JsonError::class.java) { wrong(value) }
        }
        assertEquals(
            "a: got a number with a point, expected a string",
            assertThrows(JsonError::class.java) {
                value.need("a").text("a")
            }.message,
        )
    }

    @Test
    fun `doubles have the shortest text that reads back`() {
        val known =
            mapOf(
                0.1 to "0.1", 1e16 to "1e+16", 1e15 to "1000000000000000.0", 1e-4 to "0.0001", 1e-5 to "1e-05",
                5e-324 to "5e-324",
                1.7976931348623157e308 to "1.7976931348623157e+308", -0.0 to "-0.0", 100.0 to "100.0",
                1 / 3.0 to "0.3333333333333333",
                Math.pow(2.0, -44.0) to "5.684341886080802e-14", 2e-3 to "0.002", 123456789.125 to "123456789.125",
                9007199254740993.0 to "9007199254740992.0", 1.5e300 to "1.5e+300", 1e22 to "1e+22",
            )
        for ((value, text) in known) assertEquals(text, shortest(value))
    }
}
