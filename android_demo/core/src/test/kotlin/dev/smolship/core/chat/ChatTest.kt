package dev.smolship.core.chat

import dev.smolship.core.Refusal
import dev.smolship.core.Vectors
import dev.smolship.core.flag
import dev.smolship.core.generate.End
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.generate.Tokenizer
import dev.smolship.core.ids
import dev.smolship.core.json.Json
import dev.smolship.core.template.Template
import dev.smolship.core.wholeOrNull
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class ChatTest {
    @Test
    fun `conversations go as in Python, and feed only what is new`() {
        val programs = HashMap<String, Json>()
        Vectors.each("chat") { case ->
            val engine = ForgetfulEngine(case.wholeOrNull("capacity")!!, case.wholeOrNull("forgets"))
            val start = (case["system"] as? Json.Text)?.let { listOf(Message("system", it.value)) }.orEmpty()
            val stops = case.need("stops").ids().toSet()
            val chat = Chat(engine, ByteTokenizer, rendering(case, programs), stops, messages = start)
            val turns = case.need("turns").items("turns").map { it.objectOf("turn") }
            turns.forEachIndexed { i, turn ->
                if (turn.flag("reset")) chat.restore(start)
                engine.says(turn.need("answer_ids").ids())
                val reused = ask(chat, turn)
                val name = "turn $i"
                assertEquals(name, ids(case, "fed", i), engine.fed)
                assertEquals(name, case.need("reused").ids()[i], reused)
            }
            val messages = case.need("messages").items("messages").map { it.objectOf("message") }
            assertEquals(
                messages.map { Message(it.need("role").text("role"), it.need("content").text("content")) },
                chat.messages,
            )
        }
    }

    private fun ids(case: Json.Object, name: String, turn: Int) = case.need(name).items(name)[turn].ids().toList()

    private fun rendering(case: Json.Object, programs: MutableMap<String, Json>): Rendering {
        val given = case.need("program")
        val program = if (given is Json.Text) programs.getValue(given.value) else given
        if (program is Json.Object) programs[program.need("source_sha256").text("hash")] = program
        val special = case.need("special_tokens").objectOf("special_tokens").fields
        return TemplateRendering(
            Template(program),
            special.mapValues { it.value.text("token") },
            case.need("variables").objectOf("variables").fields,
            case.need("date").text("date"),
        )
    }

    /** Asks, looks at the answer, and returns what was reused. */
    private fun ask(chat: Chat, turn: Json.Object): Int {
        val breaks = turn.wholeOrNull("breaks_after")
        val before = chat.messages.toList()
        val pieces = StringBuilder()
        var count = 0

        fun asked() = chat.ask(turn.need("text").text("text"), turn.wholeOrNull("max_tokens")) {
            pieces.append(it)
            ++count != breaks
        }
        if (turn.flag("error")) {
            assertThrows(Refusal::class.java) { asked() }
            assertEquals(before, chat.messages)
            return 0
        }
        val answer = asked()
        assertEquals(turn.need("answer").text("answer"), answer.text)
        assertEquals(turn.need("end").text("end"), answer.ending.end.key)
        if (answer.ending.end != End.INTERRUPTED) assertEquals(answer.text, pieces.toString())
        return chat.reused
    }

    @Test
    fun `an answer that breaks off by a fault joins as far as it came`() {
        val engine = ForgetfulEngine(100, null)
        val chat = Chat(engine, ByteTokenizer, { "?" }, setOf(ByteTokenizer.END))
        engine.says("Hi".toByteArray().map { it.toInt() }.toIntArray())
        assertThrows(NoSuchElementException::class.java) { chat.ask("Hello") { true } }
        assertEquals(listOf("Hello", "Hi"), chat.messages.map { it.content })
        assertThrows(NoSuchElementException::class.java) { chat.ask("Hello") { true } }
        assertEquals(2, chat.messages.size)
    }

    @Test
    fun `a template that renders nothing is refused`() {
        val chat = Chat(ForgetfulEngine(100, null), ByteTokenizer, { "" }, emptySet())
        assertThrows(Refusal::class.java) { chat.ask("Hello") { true } }
    }
}

/** An id for each byte of UTF-8, and an empty text that ends answers. */
private object ByteTokenizer : Tokenizer {
    const val END = 256

    override fun encode(text: String) = text.toByteArray().map { it.toInt() and 0xff }.toIntArray()

    override fun bytes(id: Int) = if (id == END) ByteArray(0) else byteArrayOf(id.toByte())
}

/** Says what it is told to; it can rewind by so many tokens, see tests/apps/chat.py. */
private class ForgetfulEngine(override val capacity: Int, private val forgets: Int?) : TokenEngine {
    override val vocab = ByteTokenizer.END + 1
    override var position = 0
    override val earliest get() = if (forgets == null) 0 else maxOf(reached - forgets, 0)
    private var reached = 0
    private var script = emptyList<Int>().iterator()
    val fed = ArrayList<Int>()

    fun says(ids: IntArray) {
        script = ids.toList().iterator()
        fed.clear()
    }

    override fun forward(ids: IntArray): FloatArray {
        if (position == 0) reached = 0
        fed += ids.toList()
        position += ids.size
        reached = maxOf(reached, position)
        val wanted = script.next()
        return FloatArray(vocab) { if (it == wanted) 1f else 0f }
    }

    override fun rewind(to: Int) {
        position = to
    }

    override fun close() = Unit
}
