package dev.smolship.demo

import android.app.Activity
import android.content.Intent
import android.os.Bundle
import android.text.format.Formatter
import android.view.Gravity
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import dev.smolship.core.chat.Message
import dev.smolship.core.generate.End
import dev.smolship.demo.chat.Announcer
import dev.smolship.demo.chat.ChatState
import dev.smolship.demo.chat.Phase
import java.util.concurrent.Executor

/** The chat. All of its state is the [dev.smolship.demo.chat.ChatSession]'s, which rotation does not touch. */
class ChatActivity : Activity() {
    private val session by lazy { demo.chat }
    private val meter by lazy { Meter(this, Executor { window.decorView.post(it) }, ::showReading) }
    private val announcer = Announcer()

    private lateinit var title: TextView
    private lateinit var status: TextView
    private lateinit var notice: TextView
    private lateinit var problem: TextView
    private lateinit var spoken: TextView
    private lateinit var scroll: ScrollView
    private lateinit var messages: LinearLayout
    private lateinit var question: EditText
    private lateinit var send: Button
    private lateinit var newChat: Button

    private var shown: List<Message> = emptyList()
    private var state = ChatState()
    private var reading: Reading? = null

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.chat)
        title = findViewById(R.id.title)
        status = findViewById(R.id.status)
        notice = findViewById(R.id.notice)
        problem = findViewById(R.id.problem)
        spoken = findViewById(R.id.spoken)
        scroll = findViewById(R.id.scroll)
        messages = findViewById(R.id.messages)
        question = findViewById(R.id.question)
        send = findViewById(R.id.send)
        newChat = findViewById(R.id.new_chat)
        question.setText(saved?.getString(DRAFT).orEmpty())
        send.setOnClickListener { sendOrStop() }
        newChat.setOnClickListener { session.newChat() }
        findViewById<View>(R.id.bundles).setOnClickListener { startActivity(Intent(this, BundlesActivity::class.java)) }
    }

    override fun onSaveInstanceState(out: Bundle) {
        super.onSaveInstanceState(out)
        out.putString(DRAFT, question.text.toString())
    }

    override fun onStart() {
        super.onStart()
        session.listener = ::show
        session.resume()
        meter.start()
    }

    override fun onStop() {
        meter.stop()
        session.listener = null
        session.save()
        super.onStop()
    }

    private fun sendOrStop() {
        if (state.phase == Phase.ANSWERING) return session.stop()
        val text = question.text.toString()
        if (text.isBlank()) return
        question.setText("")
        session.ask(text)
    }

    private fun show(next: ChatState) {
        val before = state
        state = next
        title.text =
            next.choice?.let { getString(R.string.chosen, it.bundle, it.target) } ?: getString(R.string.no_bundle)
        val answering = next.phase == Phase.ANSWERING
        send.text = getString(if (answering) R.string.stop else R.string.send)
        send.isEnabled = next.phase == Phase.READY || next.phase == Phase.UNLOADED || answering
        newChat.isEnabled = next.messages.isNotEmpty() && !answering
        showText(problem, next.problem)
        showText(notice, noticeOf(next))
        showMessages(next.turns)
        val back = next.unanswered.takeIf { it != before.unanswered }
        if (back != null && question.text.isEmpty()) question.setText(back)
        showStatus()
        announce(before, next)
    }

    private fun noticeOf(state: ChatState): String? {
        val phase =
            when (state.phase) {
                Phase.EMPTY -> getString(R.string.empty)
                Phase.OPENING -> getString(R.string.opening)
                Phase.UNLOADED -> getString(R.string.unloaded)
                Phase.ANSWERING, Phase.READY -> null
            }
        val end =
            when (state.ending?.end) {
                End.INTERRUPTED -> getString(R.string.broken_off)
                End.CONTEXT -> getString(R.string.context_full)
                else -> if (state.cut) getString(R.string.cut) else null
            }
        return (listOfNotNull(phase, end) + state.notes).joinToString("\n").ifEmpty { null }
    }

    /** Makes views for new messages alone; the last one's text grows. */
    private fun showMessages(next: List<Message>) {
        val same = shown.zip(next).takeWhile { (old, new) -> old == new }.size
        val growing = same == shown.size - 1 && same == next.size - 1 && shown[same].role == next[same].role
        val atEnd = scroll.getChildAt(0).bottom <= scroll.scrollY + scroll.height + scroll.height / NEAR
        if (growing) {
            fill(messages.getChildAt(same) as TextView, next[same])
        } else {
            while (messages.childCount > same) messages.removeViewAt(messages.childCount - 1)
            for (message in next.drop(same)) messages.addView(viewOf(message))
        }
        val follow = shown != next && (atEnd || next.size > shown.size)
        if (follow) scroll.post { scroll.smoothScrollTo(0, messages.bottom) }
        shown = next
    }

    private fun viewOf(message: Message): View {
        val view = layoutInflater.inflate(R.layout.message, messages, false) as TextView
        val mine = message.role == "user"
        view.setBackgroundResource(if (mine) R.drawable.question else R.drawable.answer)
        (view.layoutParams as LinearLayout.LayoutParams).gravity = if (mine) Gravity.END else Gravity.START
        return view.also { fill(it, message) }
    }

    private fun fill(view: TextView, message: Message) {
        view.text = message.content
        val spoken = if (message.role == "user") R.string.said_by_you else R.string.said_by_model
        view.contentDescription = getString(spoken, message.content)
        view.visibility = if (message.role == "system" || message.content.isEmpty()) View.GONE else View.VISIBLE
    }

    /** Sentences as they are complete; TalkBack says what changes in a live region. */
    private fun announce(before: ChatState, next: ChatState) {
        val line =
            when {
                next.phase == Phase.ANSWERING && before.phase != Phase.ANSWERING -> getString(R.string.answering)
                next.phase == Phase.ANSWERING -> announcer.next(next.partial)
                before.phase == Phase.ANSWERING -> announcer.rest(next.messages.lastOrNull()?.content.orEmpty())
                else -> null
            }
        if (line != null) spoken.text = line
    }

    private fun showReading(next: Reading) {
        reading = next
        showStatus()
    }

    private fun showStatus() {
        val parts = ArrayList<String>()
        state.tokensPerSecond?.let { parts += getString(R.string.rate, it) }
        state.ttftSeconds?.let { parts += getString(R.string.ttft, it) }
        val spoken = ArrayList(parts)
        reading?.let { now ->
            val app = Formatter.formatShortFileSize(this, now.appBytes)
            val free = Formatter.formatShortFileSize(this, now.freeBytes)
            parts += getString(R.string.memory, app, free)
            spoken += getString(R.string.memory_spoken, app, free)
            if (now.low) parts += getString(R.string.memory_low)
            if (now.low) spoken += getString(R.string.memory_low)
            val states = resources.getStringArray(R.array.thermal_states)
            val thermal =
                getString(R.string.thermal, now.thermal?.let(states::getOrNull) ?: getString(R.string.unknown))
            parts += thermal
            spoken += thermal
        }
        status.text = parts.joinToString(" · ")
        status.contentDescription = spoken.joinToString(". ")
    }

    private fun showText(view: TextView, text: String?) {
        if (view.text.toString() != text.orEmpty()) view.text = text.orEmpty() // a live region says what is set
        view.visibility = if (text == null) View.GONE else View.VISIBLE
    }

    private companion object {
        const val DRAFT = "draft"
        const val NEAR = 4 // within a quarter of a screen the view follows the answer
    }
}
