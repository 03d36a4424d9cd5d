package dev.smolship.demo.bench

import dev.smolship.core.Refusal
import dev.smolship.core.json.Json
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class BenchFilesTest {
    @get:Rule val folder = TemporaryFolder()
    private val result get() = File(folder.root, "result.json")
    private val error get() = File(folder.root, "result.json.error")
    private val progress get() = File(folder.root, "result.json.progress")
    private var now = 0L
    private val files by lazy { BenchFiles(result, "run 7", 42) { now } }

    private fun read(file: File) = Json.read(file.readBytes()) as Json.Object

    @Test fun aRunBeginsWithoutTheFilesOfAnEarlierOne() {
        result.writeText("old")
        error.writeText("old")
        files.begin()
        assertFalse(result.exists())
        assertFalse(error.exists())
        assertEquals(Json.Text("begin"), read(progress)["stage"])
        assertEquals(Json.Whole(42), read(progress)["pid"])
        assertEquals(Json.Text("run 7"), read(progress)["id"])
    }

    @Test fun progressIsToldOnceASecond() {
        files.begin()
        files.at("calls", 1, 9)
        assertEquals(Json.Text("begin"), read(progress)["stage"])
        now = 1_500_000_000
        files.at("calls", 2, 9)
        assertEquals(Json.Whole(2), read(progress)["done"])
        assertEquals(Json.Real(1.5), read(progress)["seconds"])
    }

    @Test fun theResultHasItsNameOnlyWhenItIsComplete() {
        files.begin()
        files.done("{}".toByteArray())
        assertEquals("{}", result.readText())
        assertTrue(folder.root.list()!!.none { it.endsWith(".partial") })
    }

    @Test fun whatWentWrongIsWrittenInItsParts() {
        files.begin()
        files.failed(Refusal("a plan of another version", 7, 1, "make it again"))
        val said = read(error)
        assertEquals(Json.Text("7"), said["got"])
        assertEquals(Json.Text("make it again"), said["todo"])
        files.failed(IllegalStateException())
        assertEquals(Json.Text("IllegalStateException"), read(error)["what"])
        assertEquals(Json.Null, read(error)["got"])
        assertFalse(result.exists())
    }

    @Test fun pathsOutsideTheAppsFolderAreRefused() {
        val home = folder.newFolder("files")
        File(home, "plan.json").writeText("{}")
        assertEquals(File(home, "plan.json").canonicalFile, BenchFiles.below(home, "plan.json", "plan"))
        assertEquals(File(home, "plan.json").canonicalFile, BenchFiles.below(home, "$home/plan.json", "plan"))
        for (path in listOf(null, "", "/etc/passwd", "../secret", "$home/../secret", "${home}2/plan.json")) {
            assertThrows(Refusal::class.java) { BenchFiles.below(home, path, "plan") }
        }
    }
}
