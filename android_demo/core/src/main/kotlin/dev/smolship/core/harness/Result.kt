package dev.smolship.core.harness

import dev.smolship.core.generate.Generated
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.json.Json
import dev.smolship.core.json.write
import java.io.File
import java.io.IOException

/** Cold and warm load, in milliseconds; a phone does not let an app drop a file from the system's cache. */
internal class Loads(val importMs: Double, val coldMs: Double, val warmMs: Double) {
    fun toJson(): Json = Json.Object(
        "import_ms" to Json.Real(importMs),
        "cold_ms" to Json.Real(coldMs),
        "warm_ms" to Json.Real(warmMs),
        "dropped" to Json.Null,
    )
}

/** What executing a plan gave, in the schema of runtime/smolship/runtime/result.py. */
class Result internal constructor(private val fields: Map<String, Json>) {
    fun toJson(): Json.Object = Json.Object(fields)

    /** Writes it to a temporary file beside [file], and renames that: a result is there as a whole or not at all. */
    fun save(file: File) {
        val temporary = File(file.absoluteFile.parentFile, ".${file.name}.partial")
        temporary.writeText(toJson().write() + "\n")
        if (!temporary.renameTo(file)) throw IOException("$temporary cannot be renamed to ${file.name}")
    }
}

/** What a plan must know of an engine, and whose [tokenizer] it brings along, if any. */
internal fun traits(engine: TokenEngine, runtime: String, tokenizer: String?): Json = Json.Object(
    linkedMapOf(
        "vocab" to Json.Whole(engine.vocab),
        "capacity" to Json.Whole(engine.capacity),
        "chunk" to (engine.chunk?.let { Json.Whole(it) } ?: Json.Null),
        "blocks" to Json.Array(engine.blocks.map { Json.Whole(it) }),
        "runtime" to Json.Text(runtime),
        "presets" to Json.Bool(false),
        "computes" to (engine.computes?.let { Json.Text(it) } ?: Json.Null),
    ).apply { tokenizer?.let { put("tokenizer", Json.Text(it)) } },
)

/** Collects what a result says. */
internal class Answers {
    val seen = ArrayList<Seen>()
    var loads: Loads? = null
    var times: Times? = null
    var generated: Generated? = null
    var strings: List<Tokens>? = null
    var before: Memory? = null
    var after: Memory? = null

    fun result(plan: Plan, traits: Json, artifact: String, machine: Machine, seconds: Double) = Result(
        linkedMapOf(
            "schema" to Json.Whole(1),
            "plan" to Json.Text(plan.digest),
            "artifact" to Json.Text(artifact),
            "purpose" to Json.Text(plan.purpose),
            "target" to Json.Text(plan.target),
            "engine" to Json.Text(plan.engine),
            "arithmetic" to Json.Text(plan.arithmetic),
            "threads" to Json.Whole(plan.threads),
            "traits" to traits,
            "waiting" to Json.Text(machine.waiting),
            "versions" to Json.Object(machine.versions.mapValues { Json.Text(it.value) }),
            "system" to Json.Text(machine.system),
            "cpu" to (machine.cpu?.let { Json.Text(it) } ?: Json.Null),
            "seconds" to Json.Real(seconds),
            "seen" to Json.Array(seen.map { it.toJson() }),
            "cache" to Json.Array(emptyList()),
            "nonfinite" to Json.Array(emptyList()),
            "loads" to (loads?.toJson() ?: Json.Null),
            "times" to (times?.toJson() ?: Json.Null),
            "memory_before_load" to (before?.toJson() ?: Json.Null),
            "memory" to (after?.toJson() ?: Json.Null),
        ).apply {
            generated?.let { put("generated", generated(it)) }
            strings?.let { all -> put("strings", Json.Array(all.map { it.toJson() })) }
        },
    )

    private fun generated(found: Generated): Json = Json.Object(
        "prompt_tokens" to Json.Whole(found.promptTokens),
        "ids" to ids(found.ids),
        "end" to Json.Text(found.end.key),
        "stop_id" to (found.stopId?.let { Json.Whole(it) } ?: Json.Null),
        "times" to reals(found.times),
    )
}
