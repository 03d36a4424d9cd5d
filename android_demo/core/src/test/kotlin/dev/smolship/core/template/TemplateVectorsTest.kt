package dev.smolship.core.template

import dev.smolship.core.Vectors
import dev.smolship.core.flag
import dev.smolship.core.json.Json
import org.junit.Assert.assertTrue
import org.junit.Test

class TemplateVectorsTest {
    /** Equal, refused or different are counted; a case that the export refuses counts as refused here. */
    @Test
    fun `templates render as in Python or are refused`() {
        val programs = HashMap<String, Json>()
        val different = ArrayList<String>()
        val refused = ArrayList<String>()
        var equal = 0
        var renders = 0
        for (case in Vectors.read("templates")) {
            val name = case.need("name").text("name")
            val program = programOf(case, programs)
            val got = if (program == null) Result.failure(TemplateError("refused at export")) else render(program, case)
            val expected = case["expected"] as? Json.Text
            if (expected == null) {
                assertTrue("$name: neither text nor error is expected", case.flag("error") || case.flag("limit"))
                if (got.isFailure) equal++ else different.add("$name: got '${got.getOrNull()}', expected a refusal")
                continue
            }
            val counts = !case.flag("rare")
            if (counts) renders++
            when {
                got.getOrNull() == expected.value -> equal++
                got.isSuccess -> different.add("$name: got '${got.getOrNull()}', expected '${expected.value}'")
                counts -> refused.add("$name: ${got.exceptionOrNull()?.message}")
            }
        }
        println("template cases: $equal equal, ${refused.size} of $renders refused, ${different.size} different")
        refused.forEach { println("  refused: $it") }
        assertTrue(different.joinToString("\n", "different:\n"), different.isEmpty())
        assertTrue("more than 5 % refused", refused.size * 20 <= renders)
        assertTrue("few cases: $equal", equal > 700)
    }

    private fun programOf(case: Json.Object, programs: MutableMap<String, Json>): Json? =
        when (val program = case.need("program")) {
            is Json.Object -> program.also { programs[it.need("source_sha256").text("hash")] = it }
            is Json.Text -> programs.getValue(program.value)
            else -> null
        }

    private fun render(program: Json, case: Json.Object): Result<String> = try {
        val variables = case.need("context").objectOf("context").fields
        Result.success(Template(program).render(variables, (case["date"] as? Json.Text)?.value))
    } catch (error: TemplateError) {
        Result.failure(error)
    }
}
