package dev.smolship.core.bundle

import dev.smolship.core.Record
import dev.smolship.core.Refusal
import dev.smolship.core.generate.Sampling
import dev.smolship.core.json.Json

private const val SCHEMA = 2L
private const val TODO = "export the bundle again"
private const val MOST = 1 shl 24 // tokens of a context or a vocabulary
private const val MOST_ENDS = 512 // more than any model has
private val ROLES =
    setOf("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

/** Reads a manifest with the refusals of Python's read_manifest: unknown keys, other types, paths that lead outside. */
internal class ManifestReader(json: Json) {
    private val root = Record(json, Manifest.NAME, "", TODO)

    fun manifest(): Manifest {
        val schema = root.raw("schema")
        if (schema != Json.Whole(SCHEMA)) {
            throw Refusal("a bundle of another version", "a schema of $schema", SCHEMA, "$TODO with this smolship")
        }
        root.only(
            "model", "generation", "context", "quantization", "weights_digest", "weights_bytes", "targets", "tools",
            "steps", "files", "schema",
        )
        root.record("tools")
        root.map("steps", ::checkStep)
        val model = model(root.record("model"))
        return Manifest(
            model,
            generation(root.record("generation"), model.vocab),
            root.int("context", 1..MOST),
            quantization(root.record("quantization")),
            root.text("weights_digest"),
            root.long("weights_bytes"),
            targets(),
            files(),
        )
    }

    private fun model(given: Record): ModelFacts {
        for (name in listOf("heads", "kv_heads", "head_dim")) given.longOrNull(name)
        given.textOrNull("checkpoint")
        return ModelFacts(
            given.text("source"),
            given.textOrNull("revision"),
            given.text("architecture"),
            given.long("layers"),
            given.long("hidden"),
            given.int("vocab", 1..MOST),
            given.long("parameters"),
        )
    }

    private fun generation(given: Record, vocab: Int): GenerationFacts {
        given.only("ends", "bos", "pad", "adds_bos", "sampling", "special_tokens", "template")

        fun id(record: Record, name: String) = record.int(name, 0 until vocab)

        fun idOrNull(name: String) = if (given.raw(name) == Json.Null) null else id(given, name)
        if (given.items("ends").size > MOST_ENDS) given.refuse("ends", "up to $MOST_ENDS")
        val roles = given.record("special_tokens")
        if (!ROLES.containsAll(roles.names)) given.refuse("special_tokens", "only " + ROLES.joinToString(", "))
        return GenerationFacts(
            given.records("ends") {
                it.only("id", "text", "origins")
                EndToken(id(it, "id"), it.text("text"), it.texts("origins"))
            },
            idOrNull("bos"),
            idOrNull("pad"),
            given.bool("adds_bos"),
            sampling(given.record("sampling")),
            roles.names.associateWith(roles::text),
            given.textOrNull("template"),
        )
    }

    private fun sampling(given: Record): Sampling {
        given.only("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        val temperature = given.double("temperature")
        return Sampling(
            if (given.bool("do_sample")) temperature else 0.0,
            given.double("top_p"),
            given.count("top_k"),
            given.double("min_p"),
            given.double("repetition_penalty"),
        )
    }

    private fun quantization(given: Record): Quantization {
        for (name in listOf("linear", "embedding", "head", "group", "lifted")) given.long(name)
        return Quantization(given.text("name"), given.double("share_at_4_bits"), given.texts("notes"))
    }

    private fun targets(): Map<String, Target> {
        val found = root.map("targets") { given ->
            given.only("target", "engine", "folder", "info")
            val info = given.record("info")
            info.recordOrNull("weights")?.let { own ->
                own.text("digest")
                own.record("rerounded").let { counts -> counts.names.forEach(counts::long) }
            }
            val count = info.raw("weight_bytes_per_token") as? Json.Whole
            Target(
                given.text("target"),
                given.text("engine"),
                relative(given.text("folder"), "${Manifest.NAME}: a target's folder"),
                relative(info.text("file"), "${Manifest.NAME}: a target's file"),
                given.raw("info") as Json.Object,
                count?.value?.takeIf { it.signum() > 0 && it.bitLength() < Long.SIZE_BITS }?.toLong(),
            )
        }
        found.keys.forEach { plainName(it, "${Manifest.NAME}: a target's name") }
        return found
    }

    private fun files(): Map<String, ListedFile> {
        val found = root.map("files") { ListedFile(it.long("size"), it.text("sha256")) }
        found.keys.forEach { relative(it, "${Manifest.NAME}: a file's name") }
        return found
    }

    private fun checkStep(given: Record) {
        given.double("seconds")
        given.longOrNull("peak_bytes")
        given.textOrNull("run")
        given.recordOrNull("parts")?.let { parts -> parts.names.forEach(parts::double) }
    }
}
