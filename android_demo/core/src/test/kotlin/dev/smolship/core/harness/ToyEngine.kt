package dev.smolship.core.harness

import dev.smolship.core.generate.EngineTokenizer
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.json.Json
import dev.smolship.core.wholeOrNull

/** The toy of tests/apps/plan.py, whose logits and times are exact. */
class ToyEngine(given: Json.Object) : TokenEngine {
    override val vocab = given.wholeOrNull("vocab")!!
    override val capacity = given.wholeOrNull("capacity")!!
    override val chunk = given.wholeOrNull("chunk")
    private val forgets = given.wholeOrNull("forgets")
    private val cold = given.wholeOrNull("cold")!!
    private val nan = (given["nan"] as? Json.Array)?.items?.map { it.whole("nan").toInt() }
    private val states = arrayListOf(1L) // behind 0, 1, … tokens
    private var fed = 0
    private var reached = 0
    private var ticks = 0L
    var closed = false
        private set

    override val position get() = states.size - 1
    override val earliest get() = if (forgets == null) 0 else maxOf(reached - forgets, 0)

    fun clock(): Long = ticks * TICK

    override fun forward(ids: IntArray): FloatArray {
        check(!closed)
        if (position == 0) reached = 0
        for (token in ids) {
            ticks += (if (fed++ < cold) 8 else 1) * (1 + position / 8)
            states.add((31 * states.last() + token + 7) % 65521)
        }
        reached = maxOf(reached, position)
        return FloatArray(vocab) { v ->
            val number = (13 * states.last() * (v + 1) + v.toLong() * v) % 1009 - 504
            when {
                nan == listOf(position - 1, v) -> Float.NaN
                number == 0L && v % 2 == 1 -> -0f
                else -> number / 16f
            }
        }
    }

    override fun rewind(to: Int) {
        while (position > to) states.removeAt(states.size - 1)
    }

    override fun close() {
        closed = true
    }

    private companion object {
        const val TICK = 1_953_125L // nanoseconds
    }
}

/** The tokenizer of the same file. */
class ToyTokenizer(private val vocab: Int) : EngineTokenizer {
    override fun encode(text: String, special: Boolean): IntArray? {
        if (text.startsWith("!")) return null
        val ids = text.toByteArray().map { (it.toInt() and 0xFF) % vocab }
        return (if (special) listOf(1) + ids else ids).toIntArray()
    }

    override fun decode(ids: IntArray) = ids.joinToString("") { "${'a' + it % 26}" }

    override fun close() = Unit
}

/** Executes a case of plan.json. */
fun executed(plan: Plan, engine: Json.Object, artifact: String, watch: Watch = object : Watch {}): Result {
    var last: ToyEngine? = null
    val machine = Machine(mapOf("toy" to "1"), "a test", null)
    val tokenizer = (engine["tokenizer"] as? Json.Text)?.let { name ->
        TokenizerSource(name.value) { ToyTokenizer(engine.wholeOrNull("vocab")!!) }
    }
    return Executor(machine, { last?.clock() ?: 0 }, "toy", tokenizer = tokenizer).execute(plan, artifact, watch) {
        ToyEngine(engine).also { last = it }
    }
}
