package dev.smolship.core.harness

import dev.smolship.core.Record
import dev.smolship.core.Refusal
import dev.smolship.core.generate.Sampling
import dev.smolship.core.json.Json

private const val SCHEMA = 1L
private val PURPOSES = setOf("parity", "quick parity", "load", "bench", "generate")

/**
 * Reads a plan with the refusals of Python's read_record, and writes it again as Python would: each field in turn is
 * read, and joins the object that is written.
 */
internal class PlanReader(json: Json) {
    private val root = Record(json, "plan", "", "make it again")

    fun plan(): Plan {
        root.only(
            "purpose", "target", "engine", "info", "threads", "arithmetic", "texts", "calls", "layers", "cache",
            "timing", "loads", "answer", "strings", "schema",
        )
        if (root.long("schema") != SCHEMA) throw Refusal("a plan of another version", root.long("schema"), SCHEMA)
        val purpose = root.text("purpose")
        if (purpose !in PURPOSES) root.refuse("purpose", "one of " + PURPOSES.joinToString(", "))
        root.record("info")
        val texts = root.records("texts", ::text)
        val calls = root.records("calls", ::call)
        val cache = root.records("cache") { Blob.read(it, "float32", 4) }
        val timing = root.recordOrNull("timing")?.let(::timing)
        val answer = root.recordOrNull("answer")?.let(::answer)
        val fields = linkedMapOf(
            "purpose" to Json.Text(purpose),
            "target" to Json.Text(root.text("target")),
            "engine" to Json.Text(root.text("engine")),
            "info" to root.raw("info"),
            "threads" to Json.Whole(root.int("threads")),
            "arithmetic" to Json.Text(root.text("arithmetic")),
            "texts" to Json.Array(texts.map(::written)),
            "calls" to Json.Array(calls.map(::written)),
            "layers" to Json.Whole(root.int("layers")),
            "cache" to Json.Array(cache.map { it.toJson() }),
            "timing" to (timing?.let(::written) ?: Json.Null),
            "loads" to Json.Bool(root.bool("loads")),
            "schema" to Json.Whole(SCHEMA),
        )
        if (answer != null) {
            val topK = root.record("answer").record("sampling").raw("top_k") // which may be larger than an Int
            fields["answer"] = written(answer, topK)
        }
        val strings = if (root.raw("strings") == Json.Null) null else root.texts("strings")
        if (strings != null) fields["strings"] = Json.Array(strings.map { Json.Text(it) })
        return Plan(
            purpose,
            root.text("target"),
            root.text("engine"),
            root.raw("info") as Json.Object,
            root.int("threads"),
            root.text("arithmetic"),
            texts,
            calls,
            root.int("layers"),
            cache.map { it.shape[0] },
            timing,
            root.bool("loads"),
            answer,
            strings,
            pythonJson(Json.Object(fields), compact = true) + "\n",
        )
    }

    private fun text(given: Record): Text {
        given.only("ids", "at", "wanted")
        return Text(given.ints("ids"), given.ints("at"), Table.read(given.record("wanted")))
    }

    private fun written(text: Text): Json =
        Json.Object("ids" to ids(text.ids.asList()), "at" to ids(text.at.asList()), "wanted" to text.wanted.toJson())

    private fun call(given: Record): Call {
        given.only("stage", "text", "start", "stop", "look", "rewind", "greedy", "exact", "preset")
        return Call(
            given.text("stage"),
            given.int("text"),
            given.int("start"),
            given.int("stop"),
            Look.entries.find {
                it.name.lowercase() == given.text("look")
            } ?: given.refuse("look", "none, last or all"),
            given.intOrNull("rewind"),
            given.bool("greedy"),
            given.bool("exact"),
            given.intOrNull("preset"),
        )
    }

    private fun written(call: Call): Json = Json.Object(
        "stage" to Json.Text(call.stage),
        "text" to Json.Whole(call.text),
        "start" to Json.Whole(call.start),
        "stop" to Json.Whole(call.stop),
        "look" to Json.Text(call.look.name.lowercase()),
        "rewind" to whole(call.rewind),
        "greedy" to Json.Bool(call.greedy),
        "exact" to Json.Bool(call.exact),
        "preset" to whole(call.preset),
    )

    private fun timing(given: Record): Timing {
        given.only("prompts", "depths", "tokens", "repeats", "warmups", "sustained")
        return Timing(
            given.ints("prompts"),
            given.ints("depths"),
            given.int("tokens"),
            given.int("repeats"),
            given.int("warmups"),
            given.int("sustained"),
        )
    }

    private fun written(timing: Timing): Json = Json.Object(
        "prompts" to ids(timing.prompts.asList()),
        "depths" to ids(timing.depths.asList()),
        "tokens" to Json.Whole(timing.tokens),
        "repeats" to Json.Whole(timing.repeats),
        "warmups" to Json.Whole(timing.warmups),
        "sustained" to Json.Whole(timing.sustained),
    )

    private fun answer(given: Record): Asked {
        given.only("max_tokens", "stop_ids", "sampling")
        val sampling = given.record("sampling")
        sampling.only("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        return Asked(
            given.int("max_tokens"),
            given.ints("stop_ids"),
            Sampling(
                sampling.double("temperature"),
                sampling.double("top_p"),
                sampling.count("top_k"),
                sampling.double("min_p"),
                sampling.double("repetition_penalty"),
                sampling.longOrNull("seed"),
            ),
        )
    }

    private fun written(answer: Asked, topK: Json): Json = Json.Object(
        "max_tokens" to Json.Whole(answer.maxTokens),
        "stop_ids" to ids(answer.stopIds.asList()),
        "sampling" to answer.sampling.let {
            Json.Object(
                "temperature" to Json.Real(it.temperature),
                "top_p" to Json.Real(it.topP),
                "top_k" to topK,
                "min_p" to Json.Real(it.minP),
                "repetition_penalty" to Json.Real(it.repetitionPenalty),
                "seed" to (it.seed?.let { seed -> Json.Whole(seed) } ?: Json.Null),
            )
        },
    )

    private fun whole(value: Int?): Json = if (value == null) Json.Null else Json.Whole(value)
}
