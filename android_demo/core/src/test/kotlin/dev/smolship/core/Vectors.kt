package dev.smolship.core

import dev.smolship.core.json.Json
import org.junit.Assert.fail
import java.io.File

/** The files of tests/vectors/apps, which Python wrote from what its own code does. */
object Vectors {
    private val folder = File(System.getProperty("vectors") ?: error("run these tests by android_demo/check"))

    fun read(name: String): List<Json.Object> {
        val cases = Json.read(File(folder, "$name.json").readBytes()).items(name)
        check(cases.isNotEmpty()) { "$name.json has no cases" }
        return cases.map { it.objectOf(name) }
    }

    /** Runs [test] on each case of a file, and fails with all that failed. */
    fun each(name: String, test: (Json.Object) -> Unit) {
        val failed = ArrayList<String>()
        for (case in read(name)) {
            val caseName = case.need("name").text("name")
            try {
                test(case)
            } catch (error: AssertionError) {
                failed.add("$caseName: ${error.message}")
            } catch (error: Exception) {
                failed.add("$caseName: $error at ${error.stackTrace.firstOrNull()}")
            }
        }
        if (failed.isNotEmpty()) fail("$name: ${failed.size} failed\n" + failed.joinToString("\n"))
    }
}

fun Json.ids(): IntArray = items("ids").map { it.whole("id").toInt() }.toIntArray()

/** The field's number; null where it is null or not there. */
fun Json.Object.wholeOrNull(name: String): Int? = (this[name] as? Json.Whole)?.value?.intValueExact()

fun Json.Object.flag(name: String): Boolean = this[name] == Json.Bool(true)

/** A number that may be written as a text, as NaN is. */
fun Json.number(): Double = if (this is Json.Text) value.toDouble() else real("number")
