package dev.smolship.demo.chat

import dev.smolship.core.Refusal
import dev.smolship.core.chat.Conversation
import dev.smolship.core.chat.Message
import java.io.Closeable
import java.io.IOException
import java.util.concurrent.Executor

/** An open model. */
class Opened(val conversation: Conversation, val notes: List<String>, private val engine: Closeable) :
    Closeable by engine

/** Opens a bundle's target; takes seconds. */
fun interface Opener {
    fun open(choice: Choice): Opened
}

/**
 * The conversation of the app, whichever screens come and go. It knows nothing of Android: models are opened and asked
 * on [worker], a single thread; states are told on [screen], the screen's thread, on which all functions here are called.
 */
class ChatSession(
    private val opener: Opener,
    private val file: ConversationFile,
    private val worker: Executor,
    private val screen: Executor,
    private val clock: () -> Long = System::nanoTime,
) {
    /** Told each state; set while a screen is there. */
    var listener: ((ChatState) -> Unit)? = null
        set(value) {
            field = value
            value?.invoke(state)
        }

    var state = restored()
        private set

    private var opened: Opened? = null // the worker's

    /** Counts choices and new chats: what an earlier one's work has to say is not shown. */
    private var age = 0

    @Volatile private var stopped = false

    /** Talks with another bundle, or anew with the same one; the old conversation is over, an answer is broken off. */
    fun choose(choice: Choice) {
        stopped = true
        age++
        show(ChatState(Phase.OPENING, choice))
        save()
        work(Phase.UNLOADED) { open(choice, emptyList()) }
    }

    /** Opens the model of a conversation that was kept, before the first question. */
    fun resume() {
        val choice = state.choice ?: return
        if (state.phase != Phase.UNLOADED) return
        val messages = state.messages
        show(state.copy(phase = Phase.OPENING, problem = null))
        work(Phase.UNLOADED) { open(choice, messages) }
    }

    fun ask(question: String) {
        val choice = state.choice ?: return
        if (question.isBlank() || (state.phase != Phase.READY && state.phase != Phase.UNLOADED)) return
        val before = state.messages
        stopped = false
        show(ChatState(Phase.ANSWERING, choice, before, question, notes = state.notes))
        save()
        work(Phase.READY) {
            if (opened == null) open(choice, before, Phase.ANSWERING)
            answer(question)
        }
    }

    /** Breaks the answer off; what came of it stays. */
    fun stop() {
        stopped = true
    }

    fun newChat() {
        if (state.phase != Phase.READY && state.phase != Phase.UNLOADED) return
        age++
        show(ChatState(state.phase, state.choice, notes = state.notes))
        save()
        work(Phase.READY) { opened?.conversation?.restore(emptyList()) }
    }

    /** Gives the model's memory back, unless it is answering; the conversation stays. */
    fun release() {
        if (state.phase != Phase.READY) return
        show(state.copy(phase = Phase.UNLOADED))
        work(Phase.UNLOADED) { close() }
    }

    /** Breaks an answer off, gives the model's memory back, and does [then] on the worker: another is to be measured. */
    fun giveWay(then: () -> Unit) {
        stopped = true
        work(Phase.UNLOADED) {
            close()
            tell { if (it.phase == Phase.READY) it.copy(phase = Phase.UNLOADED) else it }
            then()
        }
    }

    /** Keeps the conversation as far as it came; the system may end the process at any time. */
    fun save() {
        try {
            file.save(state.kept)
        } catch (error: IOException) {
            show(state.copy(problem = "The conversation cannot be kept: ${error.message}"))
        }
    }

    private fun restored(): ChatState = try {
        ChatState.of(file.load())
    } catch (refusal: Refusal) {
        ChatState(problem = refusal.message)
    }

    private fun show(next: ChatState) {
        state = next
        listener?.invoke(next)
    }

    /** Does [action] on the worker; what goes wrong is said on the screen, in the phase [otherwise]. */
    private fun work(otherwise: Phase, action: Work.() -> Unit) {
        val work = Work(age)
        worker.execute {
            val problem =
                try {
                    work.action()
                    return@execute
                } catch (refusal: Refusal) {
                    refusal.message
                } catch (error: Exception) {
                    "$error"
                } catch (error: OutOfMemoryError) {
                    close()
                    "There is too little memory for this model.\n$error"
                }
            val phase = if (opened == null) Phase.UNLOADED else otherwise
            val turns = opened?.conversation?.messages
            work.tell { it.over(turns ?: it.messages).copy(phase = phase, problem = problem) }
            work.keep()
        }
    }

    private fun close() {
        opened?.close()
        opened = null
    }

    /** Something that is done on the worker for the conversation of one [age]. */
    private inner class Work(private val age: Int) {
        fun tell(change: (ChatState) -> ChatState) = screen.execute {
            if (age == this@ChatSession.age) show(change(state))
        }

        fun keep() = screen.execute {
            if (age == this@ChatSession.age) save()
        }

        fun open(choice: Choice, messages: List<Message>, then: Phase = Phase.READY) {
            close() // first: two models at once may not fit
            val model = opener.open(choice)
            opened = model
            model.conversation.restore(messages)
            tell { it.copy(phase = then, notes = model.notes) }
        }

        fun answer(question: String) {
            val conversation = checkNotNull(opened).conversation
            val text = StringBuilder()
            val start = clock()
            var first = start
            var pieces = 0
            var shown = start
            var saved = start
            val answer =
                conversation.ask(question) { piece ->
                    text.append(piece)
                    val now = clock()
                    if (pieces++ == 0) first = now
                    if (pieces == 1 || now - shown >= SHOW_NS) {
                        shown = now
                        val soFar = text.toString()
                        val rate = if (now > first) (pieces - 1) * NANOS / (now - first) else null
                        val pace = Pace((first - start) / NANOS, rate)
                        tell { it.copy(partial = soFar, pace = pace) }
                    }
                    if (now - saved >= SAVE_NS) {
                        saved = now
                        keep()
                    }
                    !stopped
                }
            val turns = conversation.messages
            tell { it.over(turns).copy(phase = Phase.READY, ending = answer.ending) }
            keep()
        }
    }

    private companion object {
        const val SHOW_NS = 60_000_000L
        const val SAVE_NS = 2_000_000_000L
        const val NANOS = 1e9
    }
}
