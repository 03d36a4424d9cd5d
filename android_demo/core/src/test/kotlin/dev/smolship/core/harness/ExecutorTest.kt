package dev.smolship.core.harness

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import dev.smolship.core.Vectors
import dev.smolship.core.bundle.sha256
import dev.smolship.core.flag
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.json.Json
import dev.smolship.core.json.write
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64

class ExecutorTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private fun plan(case: Json.Object) = Plan.read(case.need("plan").text("plan").toByteArray())

    private fun case(name: String) = Vectors.read("plan").single { it["name"] == Json.Text(name) }

    @Test
    fun `plans are accepted, refused and executed as Python does`() {
        val counts = HashMap<String, Int>()
        Vectors.each("plan") { case ->
            val kind = if (!case.flag("accepted")) {
                "refused"
            } else if (case.flag("error")) {
                "failed"
            } else {
                "executed"
            }
            counts.merge(kind, 1, Int::plus)
            if (kind == "refused") {
                assertThrows(Refusal::class.java) { plan(case) }
                return@each
            }
            val plan = plan(case)
            assertEquals(case.need("digest").text("digest"), plan.digest)
            val engine = case.need("engine").objectOf("engine")
            if (kind == "failed") {
                assertThrows(Refusal::class.java) { executed(plan, engine, "") }
            } else {
                check(case.need("result").objectOf("result"), executed(plan, engine, "").toJson(), plan)
            }
        }
        assertTrue("$counts", counts.size == 3 && counts.values.all { it > 5 })
    }

    /** Compares what Python has; the logarithms may differ by little. */
    private fun check(expected: Json.Object, found: Json.Object, plan: Plan) {
        val others = setOf(
            "artifact", "waiting", "versions", "system", "cpu", "seconds", "memory_before_load", "memory", "loads",
        )
        assertEquals(expected.fields.keys, found.fields.keys - others)
        for ((key, value) in expected.fields) {
            if (key == "seen") checkSeen(value, found.need(key)) else assertEquals(key, value, found[key])
        }
        assertEquals(others, others.intersect(found.fields.keys))
        assertEquals(plan.loads, found["loads"] != Json.Null)
        val memory = found.need("memory").objectOf("memory")
        assertTrue("$memory", memory.need("anonymous_bytes").whole("bytes") > 1 shl 20)
    }

    private fun checkSeen(expected: Json, found: Json) {
        assertEquals(expected.items("seen").size, found.items("seen").size)
        expected.items("seen").zip(found.items("seen")).forEach { (one, other) ->
            val a = one.objectOf("seen")
            val b = other.objectOf("seen")
            assertEquals(a.fields.filterKeys { it != "lse" }, b.fields.filterKeys { it != "lse" })
            doubles(a).zip(doubles(b)).forEach { (x, y) -> assertEquals(x, y, 1e-9) }
            assertEquals(a.need("lse").objectOf("lse")["shape"], b.need("lse").objectOf("lse")["shape"])
        }
    }

    private fun doubles(seen: Json.Object): List<Double> {
        val bytes = Base64.getDecoder().decode(seen.need("lse").objectOf("lse").need("base64").text("base64"))
        val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asDoubleBuffer()
        return List(buffer.remaining()) { buffer.get() }
    }

    @Test
    fun `the digest is that of the record, whatever the file's spaces and order`() {
        for (case in Vectors.read("plan").filter { it.flag("accepted") }) {
            val json = Json.read(case.need("plan").text("plan")).objectOf("plan")
            val turned = Json.Object(json.fields.entries.reversed().associate { it.key to it.value })
            val text = pythonJson(turned, compact = false).replace("\"temperature\": 0.0", "\"temperature\": 0")
            assertEquals(case.need("digest").text("digest"), Plan.read(" $text\n\n".toByteArray()).digest)
        }
    }

    @Test
    fun `a top_k beyond 32 bits is all of them, and keeps its place in the digest`() {
        val text = case("an answer").need("plan").text("plan").replace("\"top_k\":0", "\"top_k\":1000000000000")
        val plan = Plan.read(text.toByteArray())
        assertEquals(Int.MAX_VALUE, plan.answer!!.sampling.topK)
        assertEquals(sha256(text), plan.digest)
    }

    @Test
    fun `texts and keys beyond ASCII are hashed as Python writes them`() {
        // python3 -c 'import json; print(json.dumps({"\U0001f600": 1, "\uffff": 2, "é\x7f\u2028": [1.0, 1e16]}, sort_keys=True))'
        val value = Json.read("""{"😀": 1, "${'\uffff'}": 2, "é${'\u007f'}${'\u2028'}": [1.0, 1e16]}""")
        assertEquals(
            """{"\u00e9\u007f\u2028": [1.0, 1e+16], "\uffff": 2, "\ud83d\ude00": 1}""",
            pythonJson(value, compact = false),
        )
    }

    @Test
    fun `an execution can be ended, and closes its engine`() {
        val case = case("times of a bench")
        var left = 100
        val watch = object : Watch {
            override fun goesOn() = left-- > 0
        }
        var engine: ToyEngine? = null
        val executor = Executor(Machine(emptyMap(), "", null), { engine!!.clock() })
        assertThrows(Cancelled::class.java) {
            executor.execute(plan(case), "", watch) {
                ToyEngine(case.need("engine").objectOf("engine")).also { engine = it }
            }
        }
        assertTrue(engine!!.closed)
        assertEquals(-1, left)
    }

    @Test
    fun `the stages and the answer's tokens are told as they come`() {
        val told = ArrayList<String>()
        val watch = object : Watch {
            override fun at(stage: String, done: Int, total: Int) {
                told.add("$stage $done/$total")
            }

            override fun token(id: Int) {
                told.add("$id")
            }
        }
        val calls = case("greedy from the first call")
        executed(plan(calls), calls.need("engine").objectOf("engine"), "", watch)
        assertEquals(listOf("a 0/2", "b 1/2"), told)
        told.clear()
        val answer = case("an answer")
        val result = executed(plan(answer), answer.need("engine").objectOf("engine"), "", watch).toJson()
        val ids = result.need("generated").objectOf("generated").need("ids").items("ids")
        assertEquals(ids.map { "${it.whole("id")}" }, told)
    }

    @Test
    fun `a result is written as a whole`() {
        val case = case("an answer")
        val result = executed(plan(case), case.need("engine").objectOf("engine"), "abc")
        val file = File(temporary.root, "result.json")
        result.save(file)
        assertEquals(result.toJson(), Json.read(file.readBytes()))
        assertEquals(listOf("result.json"), temporary.root.list()!!.toList())
        assertThrows(IOException::class.java) { result.save(File(temporary.root, "nowhere/result.json")) }
    }

    @Test
    fun `traits are the engine's`() {
        val case = case("nothing asked: the traits")
        val engine = object : TokenEngine by ToyEngine(case.need("engine").objectOf("engine")) {
            override val chunk = 32
            override val blocks = listOf(16, 256)
            override val computes = "fp16"
        }
        val result = Executor(Machine(emptyMap(), "", null), runtime = "mine").execute(plan(case), "") { engine }
        assertEquals(
            """{"vocab": 40, "capacity": 64, "chunk": 32, "blocks": [16, 256], "runtime": "mine", """ +
                """"presets": false, "computes": "fp16"}""",
            result.toJson().need("traits").write(),
        )
    }

    @Test
    fun `an engine of other logits than its vocabulary is refused`() {
        val case = case("an answer")
        val engine = ToyEngine(case.need("engine").objectOf("engine"))
        val executor = Executor(Machine(emptyMap(), "", null))
        val odd = object : TokenEngine by engine {
            override fun forward(ids: IntArray) = engine.forward(ids).copyOf(3)
        }
        assertThrows(Refusal::class.java) { executor.execute(plan(case), "") { odd } }
        assertFalse(File(temporary.root, "result.json").exists())
    }
}
