package dev.smolship.demo.bench

import dev.smolship.core.Refusal
import dev.smolship.core.generate.EngineTokenizer
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.harness.Machine
import dev.smolship.core.harness.TokenizerSource
import dev.smolship.core.json.Json
import dev.smolship.core.json.write
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class BenchRunTest {
    @get:Rule val folder = TemporaryFolder()
    private val home get() = File(folder.root, "files") // what leaves it still lies in the test's folder
    private val device = ToyDevice()
    private val asked = Request("bench/plan.json", "bench/out/result.json", "bundles/tiny/onnx", "run 1")
    private val result get() = File(home, asked.result!!)
    private val seen = ArrayList<String>()

    private fun run(request: Request = asked) = BenchRun(home, device, 42).run(request) { stage, done, total ->
        seen +=
            "$stage $done/$total"
    }

    private fun read(file: File) = Json.read(file.readBytes()) as Json.Object

    private fun error() = read(File(result.path + ".error"))

    @Before fun files() {
        File(home, "bench").mkdirs()
        File(home, "bundles/tiny/onnx").mkdirs()
        File(home, "bundles/tiny/onnx/model.onnx").writeText("weights")
        File(home, asked.plan!!).writeText(PLAN)
    }

    @Test fun aPlanIsExecutedAndItsResultWritten() {
        assertEquals(result.canonicalFile, run())
        val found = read(result)
        assertEquals(Json.Text("load"), found["purpose"])
        assertEquals(Json.Whole(8), (found["traits"] as Json.Object)["vocab"])
        assertEquals(Json.Text("toy"), found["system"])
        assertEquals(listOf("onnx bundles/tiny/onnx 3"), device.opened)
        assertEquals(listOf("first 0/1"), seen)
        assertFalse(File(result.path + ".error").exists())
        assertEquals(Json.Text("run 1"), read(File(result.path + ".progress"))["id"])
    }

    @Test fun stringsGoToTheTokenizerThatComesWithTheEngine() {
        File(home, asked.plan!!).writeText(PLAN.replace("\"threads\":3", "\"strings\":[\"a\"],\"threads\":3"))
        assertThrows(Refusal::class.java) { run() }
        assertEquals(Json.Text("this engine has no tokenizer"), error()["what"])
        device.tokenizer = TokenizerSource("toy's") { ToyTokenizer() }
        run()
        val found = read(result)
        assertEquals(Json.Text("toy's"), (found["traits"] as Json.Object)["tokenizer"])
        assertEquals("""[{"bare": null, "around": [97], "text": "1"}]""", found["strings"]!!.write())
        assertEquals("tokenizer 0/1", seen.first())
    }

    @Test fun theHostHearsOfARunWhoseEngineIsSilent() {
        val progress = File(result.path + ".progress")
        device.before = {
            val first = progress.readText()
            val end = System.nanoTime() + 30_000_000_000
            while (progress.readText() == first && System.nanoTime() < end) Thread.sleep(20)
            assertTrue("it was silent", progress.readText() != first)
        }
        run()
        val last = progress.readText()
        Thread.sleep(1200)
        assertEquals("it goes on after its end", last, progress.readText())
    }

    @Test fun whatGoesWrongIsWritten() {
        device.failure = Refusal("the engine cannot open model.onnx", "a bad file", todo = "export again")
        assertThrows(Refusal::class.java) { run() }
        assertEquals(Json.Text("the engine cannot open model.onnx"), error()["what"])
        assertEquals(Json.Text("run 1"), error()["id"])
        assertFalse(result.exists())
        device.failure = UnsatisfiedLinkError("libexecutorch.so")
        assertThrows(UnsatisfiedLinkError::class.java) { run() }
        assertEquals(Json.Text("libexecutorch.so"), error()["got"])
    }

    @Test fun aRunAfterAFailureLeavesNoError() {
        device.failure = OutOfMemoryError()
        assertThrows(OutOfMemoryError::class.java) { run() }
        device.failure = null
        run()
        assertFalse(File(result.path + ".error").exists())
    }

    @Test fun plansThatAreNoneAndPathsElsewhereAreRefused() {
        File(home, asked.plan!!).writeText("{\"schema\": 1")
        assertThrows(Refusal::class.java) { run() }
        assertTrue((error()["what"] as Json.Text).value.contains("plan"))
        File(home, asked.plan).writeText(PLAN.replace("\"arithmetic\":\"\"", "\"arithmetic\":\"fp16\""))
        assertThrows(Refusal::class.java) { run() }
        assertEquals(Json.Text("fp16"), error()["got"])
        assertThrows(Refusal::class.java) { run(asked.copy(plan = "bench/none.json")) }
        assertThrows(Refusal::class.java) { run(asked.copy(plan = "/etc/passwd")) }
        assertThrows(Refusal::class.java) { run(asked.copy(folder = null)) }
        assertEquals(Json.Text("the intent names no folder"), error()["what"])
        assertThrows(Refusal::class.java) { run(asked.copy(result = "../result.json")) }
        assertFalse(File(home.parentFile, "result.json.error").exists())
        assertEquals(emptyList<String>(), device.opened)
    }

    @Test fun aRequestThatIsNotExecutedIsAnswered() {
        File(home, "bench/out").mkdirs()
        BenchRun(home, device, 42).refuse(asked, Refusal("another plan is being executed", "run 0"))
        assertEquals(Json.Text("run 0"), error()["got"])
    }

    private inner class ToyDevice : Device {
        var failure: Throwable? = null
        var tokenizer: TokenizerSource? = null
        var before: () -> Unit = {}
        val opened = ArrayList<String>()

        override fun load(engine: String) = 1.0

        override fun machine(engine: String) = Machine(mapOf("toy" to "1"), "toy", null)

        override fun tokenizer(engine: String, folder: File) = tokenizer

        override fun open(engine: String, folder: File, info: Json.Object, threads: Int): TokenEngine {
            failure?.let { throw it }
            before()
            opened += "$engine ${folder.relativeTo(home.canonicalFile)} $threads"
            return Toy()
        }
    }

    private class ToyTokenizer : EngineTokenizer {
        override fun encode(text: String, special: Boolean) = if (special) intArrayOf(text[0].code) else null

        override fun decode(ids: IntArray) = "${ids.size}"

        override fun close() = Unit
    }

    private class Toy : TokenEngine {
        override val vocab = 8
        override val capacity = 16
        override var position = 0

        override fun forward(ids: IntArray) = FloatArray(vocab) { (it + position).toFloat() }.also {
            position +=
                ids.size
        }

        override fun rewind(to: Int) {
            position = to
        }

        override fun close() = Unit
    }

    private companion object {
        const val PLAN = """{
            "arithmetic":"","cache":[],
            "calls":[{"exact":false,"greedy":false,"look":"last","preset":null,"rewind":null,"stage":"first","start":0,"stop":3,"text":0}],
            "engine":"onnx","info":{"context":16,"file":"model.onnx"},"layers":0,"loads":false,
            "purpose":"load","schema":1,"target":"onnx-cpu",
            "texts":[{"at":[],"ids":[1,2,3],"wanted":{"base64":"","dtype":"int32","shape":[0,0]}}],
            "threads":3,"timing":null
        }"""
    }
}
