package dev.smolship.core.template

import dev.smolship.core.json.Json
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File
import java.util.zip.GZIPInputStream

class TemplateCasesTest {
    /** The cases that core/src/test/templates/make.py writes, from what Python renders. */
    @Test
    fun `filters, tests, methods, operators and statements do what Python does or are refused`() {
        val given = GZIPInputStream(File(folder(), "cases.json.gz").inputStream()).use { Json.read(it.readBytes()) }
        val found = given.objectOf("cases.json")
        val context = found.need("context").objectOf("context").fields
        val date = found.need("date").text("date")
        val different = ArrayList<String>()
        val refused = ArrayList<String>()
        var equal = 0
        for (case in found.need("cases").items("cases").map { it.objectOf("case") }) {
            val expected = (case["expected"] as? Json.Text)?.value
            val got =
                try {
                    Template(case.need("program")).render(context, date)
                } catch (error: TemplateError) {
                    if (expected != null) refused.add("${case["template"]}: ${error.message}")
                    null
                }
            if (got == expected) {
                equal++
            } else if (got != null) {
                different.add("${case["template"]}: '$got', not '$expected'")
            }
        }
        println("template cases of the core: $equal equal, ${refused.size} refused, ${different.size} different")
        assertTrue(different.joinToString("\n", "different:\n"), different.isEmpty())
        assertTrue(refused.joinToString("\n", "more than 2 % refused:\n"), refused.size * 50 <= equal)
        assertTrue("few cases: $equal", equal > 1200)
    }

    private fun folder(): File {
        val root = generateSequence(File("").absoluteFile) {
            it.parentFile
        }.first { File(it, "android_demo").isDirectory }
        return File(root, "android_demo/core/src/test/templates")
    }
}
