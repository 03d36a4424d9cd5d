package dev.smolship.core.chat

import dev.smolship.core.Refusal
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Ending
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class TextChatTest {
    private val engine = FakeTextEngine()
    private val plain = Rendering { turns -> turns.joinToString("") { "<${it.role}>${it.content}</>" } + "<assistant>" }

    private fun TextChat.says(text: String) = ask(text) { true }.text

    @Test
    fun `what the engine holds is not fed again`() {
        val chat = TextChat(engine, plain)
        engine.answers += listOf("Hi!", "A model.")
        assertEquals("Hi!", chat.says("Hello"))
        assertEquals("A model.", chat.says("Who?"))
        assertEquals(listOf("<user>Hello</><assistant>", "</><user>Who?</><assistant>"), engine.fed)
        assertEquals("<user>Hello</><assistant>Hi!".length, chat.reused)
        assertEquals(listOf("Hello", "Hi!", "Who?", "A model."), chat.messages.map { it.content })
    }

    @Test
    fun `a template that drops something of earlier turns begins anew`() {
        val dropping = Rendering { turns ->
            turns.joinToString("") { "<${it.role}>${it.content.substringAfter("</think>")}</>" } + "<assistant>"
        }
        val chat = TextChat(engine, dropping)
        engine.answers += listOf("<think>x</think>Hi!", "So.")
        chat.says("Hello")
        chat.says("Who?")
        assertEquals("<user>Hello</><assistant>Hi!</><user>Who?</><assistant>", engine.fed.last())
        assertEquals(0, chat.reused)
    }

    @Test
    fun `after an answer that was broken off, or did not end by itself, all is fed again`() {
        for (end in listOf(End.INTERRUPTED, End.MAX_TOKENS, End.CONTEXT)) {
            val chat = TextChat(engine, plain)
            engine.answers += listOf("Half an", "So.")
            engine.end = end
            chat.says("Hello")
            engine.end = End.STOP
            chat.says("Who?")
            assertEquals("<user>Hello</><assistant>Half an</><user>Who?</><assistant>", engine.fed.last())
        }
    }

    @Test
    fun `an engine that fails leaves no trace before its first word, and begins anew`() {
        val chat = TextChat(engine, plain)
        engine.answers += "Hi!"
        chat.says("Hello")
        assertThrows(Refusal::class.java) { chat.says("no answer is left") }
        assertEquals(2, chat.messages.size)
        engine.answers += "Again."
        chat.says("Who?")
        assertEquals("<user>Hello</><assistant>Hi!</><user>Who?</><assistant>", engine.fed.last())
    }

    @Test
    fun `pieces are told until the sink has enough`() {
        val chat = TextChat(engine, plain)
        engine.answers += "one two three"
        val pieces = ArrayList<String>()
        val answer = chat.ask("Count") { pieces.add(it) && pieces.size < 2 }
        assertEquals(listOf("one ", "two "), pieces)
        assertEquals("one two ", answer.text)
        assertEquals(End.INTERRUPTED, answer.ending.end)
        assertEquals("one two ", chat.messages.last().content)
    }

    @Test
    fun `a kept conversation is taken up again`() {
        val chat = TextChat(engine, plain)
        chat.restore(listOf(Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Ho")))
        engine.answers += "Yes."
        chat.says("Still there?")
        assertEquals(5, chat.messages.size)
        val rendered = "<system>Be kind.</><user>Hi</><assistant>Ho</><user>Still there?</><assistant>"
        assertEquals(listOf(rendered), engine.fed)
    }

    @Test
    fun `a template that refuses or renders nothing changes nothing`() {
        val silent = TextChat(engine, { "" })
        assertThrows(Refusal::class.java) { silent.says("Hello") }
        val refusing = TextChat(engine, { throw Refusal("no") })
        assertThrows(Refusal::class.java) { refusing.says("Hello") }
        assertThrows(Refusal::class.java) { TextChat(engine, plain).ask("Hello", 0) { true } }
        assertEquals(emptyList<String>(), engine.fed)
        assertEquals(emptyList<Message>(), silent.messages + refusing.messages)
    }
}

/** Answers word by word from a list. */
private class FakeTextEngine : TextEngine {
    override val capacity = 100
    val answers = ArrayDeque<String>()
    val fed = ArrayList<String>()
    var end = End.STOP

    override fun generate(text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending {
        fed.add(text)
        val answer = answers.removeFirstOrNull() ?: throw Refusal("the engine failed")
        val goesOn = Regex("\\S+ ?").findAll(answer).all { sink(it.value) }
        return Ending(if (goesOn) end else End.INTERRUPTED, null, 1, 0.1, null)
    }

    override fun reset() = Unit

    override fun close() = Unit
}
