package dev.smolship.core.template

import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** Programs that no export writes, and limits. */
class TemplateTest {
    private fun program(body: String) = Json.read("""{"schema": 1, "source_sha256": "0", "body": [$body]}""")

    private fun output(expression: String) = """{"node": "Output", "line": 1, "nodes": [$expression]}"""

    private fun const(value: String) = """{"node": "Const", "line": 1, "value": $value}"""

    private fun name(name: String, ctx: String = "load") =
        """{"node": "Name", "line": 1, "name": "$name", "ctx": "$ctx"}"""

    private fun binary(kind: String, left: String, right: String) =
        """{"node": "$kind", "line": 1, "left": $left, "right": $right}"""

    private fun render(body: String, limits: Limits = Limits(), vararg variables: Pair<String, Json>): String =
        Template(program(body), limits).render(mapOf(*variables), "2025-03-07")

    private fun refused(body: String, limits: Limits = Limits()): String =
        assertThrows(TemplateError::class.java) { render(body, limits) }.message!!

    private fun loop(times: Int, body: String) =
        """{"node": "For", "line": 1, "target": ${name("i", "store")}, "iter": {"node": "Call", "line": 1,
        "value": ${name("range")}, "args": [${const("$times")}], "kwargs": [], "dyn_args": null, "dyn_kwargs": null},
        "body": [$body], "else_": [], "test": null, "recursive": false}"""

    @Test
    fun `a template is rendered again and again`() {
        val template = Template(program(output(name("x"))))
        assertEquals("a", template.render(mapOf("x" to Json.Text("a"))))
        assertEquals("[1, 1.0, None]", template.render(mapOf("x" to Json.read("[1, 1.0, null]"))))
        assertEquals("", template.render(emptyMap()))
        assertEquals("0", template.sourceSha256)
    }

    @Test
    fun `trees that jinja does not make are refused`() {
        val wrong =
            mapOf(
                """{"node": "Import", "line": 1}""" to "Import",
                """{"node": "Output", "line": 1}""" to "fields",
                """{"node": "Output", "line": 1, "nodes": [], "more": 1}""" to "more",
                """{"node": "Output", "line": 1, "nodes": null}""" to "an array of nodes",
                """{"node": "Output", "nodes": []}""" to "fields",
                """{"node": "Break", "line": 1}""" to "outside of a loop",
                output("""{"node": "Break", "line": 1}""") to "an expression",
                output(const("[]")) to "Const",
                const("1") to "a statement",
                """{"node": "Assign", "line": 1, "target": ${const("1")}, "value": ${const("1")}}""" to "a target",
            )
        for ((body, part) in wrong) assertTrue("$body: ${refused(body)}", part in refused(body))
        for (text in listOf("[]", "{}", """{"schema": 2, "source_sha256": "0", "body": []}""")) {
            assertThrows(TemplateError::class.java) { Template(Json.read(text)) }
        }
    }

    @Test
    fun `nesting beyond the reader's is refused where it is read`() {
        var deep = const("1")
        repeat(700) { deep = """{"node": "Not", "line": 1, "value": $deep}""" }
        assertThrows(JsonError::class.java) { program(output(deep)) }
        var allowed = const("1")
        repeat(500) { allowed = """{"node": "Neg", "line": 1, "value": $allowed}""" }
        assertEquals("1", render(output(allowed)))
    }

    @Test
    fun `limits end a rendering`() {
        val text = output(const("\"0123456789\""))
        assertTrue("steps" in refused(loop(1000, text), Limits(steps = 100)))
        assertTrue("writes more than 9999" in refused(loop(1000, text), Limits(output = 9999)))
        assertEquals(10_000, render(loop(1000, text), Limits(output = 10_000)).length)
        assertTrue("makes more" in refused(output(binary("Mul", const("\"ab\""), const("1000000000")))))
        val list = """{"node": "List", "line": 1, "items": [${const("1")}]}"""
        assertTrue("makes more" in refused(output(binary("Mul", list, const("99999999")))))
        assertTrue("bits" in refused(output(binary("Pow", const("9"), const("99999999")))))
        refused(output(binary("Mul", const("\"\""), const("9223372036854775808"))))
    }

    @Test
    fun `a long conversation is rendered at once`() {
        val messages = Json.Array(List(2000) { Json.Text("word ".repeat(200)) })
        val fields = """"line": 1, "value": ${name("m")}, "arg": ${name("i")}, "ctx": "load""""
        val body = loop(2000, output("""{"node": "Getitem", $fields}"""))
        assertEquals(2_000_000, render(body, Limits(), "m" to messages).length)
    }

    @Test
    fun `dates are ISO 8601`() {
        val now =
            output(
                """{"node": "Call", "line": 1, "value": ${name("strftime_now")}, 
                "args": [${const("\"%Y-%m-%d %H:%M\"")}], "kwargs": [], "dyn_args": null, "dyn_kwargs": null}""",
            )
        val template = Template(program(now))
        assertEquals("2025-03-07 00:00", template.render(emptyMap(), "2025-03-07"))
        assertEquals("2025-03-07 12:34", template.render(emptyMap(), "2025-03-07T12:34:56"))
        assertTrue(template.render(emptyMap()).matches(Regex("[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}")))
        for (date in listOf("7 March 2025", "2025-02-30", "")) {
            assertThrows(TemplateError::class.java) { template.render(emptyMap(), date) }
        }
    }
}
