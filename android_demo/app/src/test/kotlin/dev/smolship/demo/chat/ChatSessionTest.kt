package dev.smolship.demo.chat

import dev.smolship.core.Refusal
import dev.smolship.core.chat.Answer
import dev.smolship.core.chat.Conversation
import dev.smolship.core.chat.Message
import dev.smolship.core.generate.End
import dev.smolship.core.generate.Ending
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.util.ArrayDeque
import java.util.concurrent.Executor

/** The worker and the screen take their turns where the test says so: nothing here depends on time. */
class ChatSessionTest {
    @get:Rule val folder = TemporaryFolder()
    private val worker = Queue()
    private val screen = Queue()
    private val kept get() = File(folder.root, "conversation.json")
    private val opener = ToyOpener()
    private var now = 0L
    private val seen = ArrayList<ChatState>()

    private fun session() = ChatSession(opener, ConversationFile(kept), worker, screen) { now }

    private fun ChatSession.settled(): ChatState {
        do {
            val busy = worker.runOne() or screen.runOne()
        } while (busy)
        return state
    }

    private fun ChatSession.opened() = also {
        it.choose(CHOICE)
        it.settled()
    }

    @Test fun aQuestionIsAnsweredPieceByPiece() {
        val session = session().opened()
        session.listener = { seen += it }
        session.ask("Hi")
        assertEquals(Phase.ANSWERING, session.state.phase)
        val end = session.settled()
        assertEquals(Phase.READY, end.phase)
        assertEquals(listOf(Message("user", "Hi"), Message("assistant", "one two three")), end.messages)
        assertEquals(End.STOP, end.ending?.end)
        assertTrue(seen.any { it.partial == "one " })
        assertTrue(seen.any { it.partial == "one two three" && it.pace?.perSecond == 1.0 })
    }

    @Test fun anotherProcessGoesOnWithTheConversation() {
        session().opened().apply { ask("Hi") }.settled()
        val later = session()
        assertEquals(Phase.UNLOADED, later.state.phase)
        assertEquals("one two three", later.state.messages.last().content)
        later.ask("And?")
        later.settled()
        assertEquals(4, later.state.messages.size)
        assertEquals(2, opener.restored.last().size)
    }

    @Test fun anAnswerThatIsUnderWayIsKept() {
        val session = session().opened()
        opener.pieces = listOf("half ", "of it")
        session.ask("Hi")
        opener.between = { screen.runAll() }
        worker.runOne()
        session.save()
        val again = ConversationFile(kept).load()
        assertEquals(CHOICE, again.choice)
        assertEquals(listOf(Message("user", "Hi"), Message("assistant", "half ")), again.messages)
        val later = session()
        assertTrue(later.state.cut)
        assertEquals(again.messages, later.state.messages)
        later.resume()
        assertTrue(later.settled().cut)
        later.ask("And?")
        assertFalse(later.settled().cut)
        assertEquals(4, later.state.messages.size)
    }

    @Test fun aQuestionWithoutAWordOfAnAnswerComesBack() {
        session().opened().ask("Hi") // and the process ends
        val later = session()
        assertEquals("Hi", later.state.unanswered)
        assertEquals(emptyList<Message>(), later.state.messages)
        opener.failure = Refusal("too little memory")
        later.ask("Hi")
        assertNull(later.state.unanswered)
        assertEquals("Hi", later.settled().unanswered)
        assertEquals(emptyList<Message>(), later.state.messages)
        opener.failure = null
        later.ask("Hi")
        assertNull(later.settled().unanswered)
        assertEquals(2, later.state.messages.size)
    }

    @Test fun aConversationThatCannotBeReadIsSaid() {
        kept.writeText("{")
        val state = session().state
        assertEquals(Phase.EMPTY, state.phase)
        assertTrue(state.problem!!.contains("conversation.json.unreadable"))
    }

    @Test fun stopBreaksTheAnswerOff() {
        val session = session().opened()
        opener.between = { session.stop() }
        session.ask("Hi")
        val end = session.settled()
        assertEquals("one ", end.messages.last().content)
        assertEquals(End.INTERRUPTED, end.ending?.end)
    }

    @Test fun whatCannotBeOpenedIsSaid() {
        opener.failure = Refusal("a file is altered", "model.pte", "what its manifest lists", "copy it again")
        val state = session().opened().state
        assertEquals(Phase.UNLOADED, state.phase)
        assertTrue(state.problem!!.contains("model.pte"))
    }

    @Test fun tooLittleMemoryIsSaidAndTheModelClosed() {
        val session = session().opened()
        opener.between = { throw OutOfMemoryError("cache") }
        session.ask("Hi")
        val end = session.settled()
        assertTrue(end.problem!!.contains("too little memory"))
        assertEquals(Phase.UNLOADED, end.phase)
        assertEquals(1, opener.closed)
    }

    @Test fun memoryIsGivenBackAndTheModelOpenedAgain() {
        val session = session().opened()
        session.release()
        assertEquals(Phase.UNLOADED, session.settled().phase)
        assertEquals(1, opener.closed)
        session.ask("Hi")
        assertEquals(2, session.settled().messages.size)
        assertEquals(2, opener.opened)
    }

    @Test fun memoryIsNotGivenBackDuringAnAnswer() {
        val session = session().opened()
        session.ask("Hi")
        session.release()
        assertEquals("one two three", session.settled().messages.last().content)
        assertEquals(0, opener.closed)
    }

    @Test fun anotherBundleBreaksTheAnswerOffAndNothingOfItIsShown() {
        val session = session().opened()
        opener.between = { session.choose(Choice("other", "onnx")) }
        session.ask("Hi")
        val end = session.settled()
        assertEquals("other", end.choice?.bundle)
        assertEquals(emptyList<Message>(), end.messages)
        assertEquals(Phase.READY, end.phase)
        assertNull(end.ending)
    }

    @Test fun aNewChatForgets() {
        val session = session().opened().apply { ask("Hi") }
        session.settled()
        session.newChat()
        assertEquals(emptyList<Message>(), session.settled().messages)
        assertEquals(emptyList<Message>(), ConversationFile(kept).load().messages)
        assertEquals(emptyList<Message>(), opener.restored.last())
    }

    @Test fun aScreenThatComesBackSeesTheStateAtOnce() {
        val session = session().opened()
        session.listener = null
        session.ask("Hi")
        session.settled()
        session.listener = { seen += it }
        assertEquals("one two three", seen.single().messages.last().content)
    }

    private inner class ToyOpener : Opener {
        var pieces = listOf("one ", "two ", "three")
        var between: () -> Unit = {}
        var failure: Exception? = null
        var opened = 0
        var closed = 0
        val restored = ArrayList<List<Message>>()

        override fun open(choice: Choice): Opened {
            failure?.let { throw it }
            opened++
            return Opened(Toy(), listOf("a note"), { closed++ })
        }

        private inner class Toy : Conversation {
            override var messages = listOf<Message>()

            override fun ask(text: String, maxTokens: Int?, sink: (String) -> Boolean): Answer {
                val said = StringBuilder()
                var end = End.STOP
                for (piece in pieces) {
                    now += 1_000_000_000
                    said.append(piece)
                    between()
                    val more = sink(piece)
                    if (!more) {
                        end = End.INTERRUPTED
                        break
                    }
                }
                messages = messages + Message("user", text) + Message("assistant", said.toString())
                return Answer(said.toString(), Ending(end, 1, 3, 1.0, 1.0))
            }

            override fun restore(messages: List<Message>) {
                this.messages = messages
                restored += messages
            }
        }
    }

    private class Queue : Executor {
        private val waiting = ArrayDeque<Runnable>()

        override fun execute(action: Runnable) {
            waiting += action
        }

        fun runOne(): Boolean {
            val next = waiting.poll() ?: return false
            next.run()
            return true
        }

        fun runAll() {
            do {
                val busy = runOne()
            } while (busy)
        }
    }

    private companion object {
        val CHOICE = Choice("smollm2", "executorch")
    }
}
