package dev.smolship.core.bundle

import dev.smolship.core.Refusal
import dev.smolship.core.generate.Sampling
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.json.JsonLimits
import java.io.File
import java.io.IOException

/** What the manifest says of the model, for people; [vocab] bounds the ids of tokens. */
data class ModelFacts(
    val source: String,
    val revision: String?,
    val architecture: String,
    val layers: Long,
    val hidden: Long,
    val vocab: Int,
    val parameters: Long,
)

/** A token that ends an answer; [origins] are what names it, such as "generation_config.json". */
data class EndToken(val id: Int, val text: String, val origins: List<String>)

/**
 * What the model's files say of generating, resolved at export.
 *
 * @property ends every token that ends an answer
 * @property addsBos the tokenizer puts [bos] in front of a raw text
 * @property sampling that the model's makers recommend
 * @property specialTokens what the chat template sees as bos_token and so on
 * @property template where the chat template comes from; null where there is none
 */
data class GenerationFacts(
    val ends: List<EndToken>,
    val bos: Int?,
    val pad: Int?,
    val addsBos: Boolean,
    val sampling: Sampling,
    val specialTokens: Map<String, String>,
    val template: String?,
) {
    val endIds: Set<Int> get() = ends.map { it.id }.toSet()
}

/** How the weights are held; [name] such as "int4", [notes] of the export. */
data class Quantization(val name: String, val shareAt4Bits: Double, val notes: List<String>)

/**
 * One artifact of the bundle.
 *
 * @property target format-backend, such as "onnx-cpu"
 * @property engine what opens it
 * @property folder where it lies, relative to the bundle
 * @property file what is opened, relative to [folder]
 * @property info all that the engine is opened with
 * @property bytesPerToken weight bytes that one decoded token reads; null where the bundle does not say
 */
data class Target(
    val target: String,
    val engine: String,
    val folder: String,
    val file: String,
    val info: Json.Object,
    val bytesPerToken: Long?,
)

data class ListedFile(val size: Long, val sha256: String)

/**
 * manifest.json: what a bundle holds.
 *
 * @property context tokens that the cache holds
 * @property weightsBytes of the set of weights, that one decoded token reads
 * @property targets by name
 * @property files all of them but the manifest, by relative path
 */
data class Manifest(
    val model: ModelFacts,
    val generation: GenerationFacts,
    val context: Int,
    val quantization: Quantization,
    val weightsDigest: String,
    val weightsBytes: Long,
    val targets: Map<String, Target>,
    val files: Map<String, ListedFile>,
) {
    /**
     * Bytes of all files that are to be written; refused where there are too many, of sizes or hashes that no files have,
     * or where two of them need one place.
     */
    fun bytesToWrite(): Long {
        if (files.size > MOST_FILES) throw Refusal("$NAME lists too many files", files.size, "at most $MOST_FILES")
        onePlaceEach(files.keys + NAME)
        if (NAME in files) throw Refusal("$NAME lists itself", todo = "ask whoever offers the bundle")
        return files.entries.fold(0L) { sum, (name, file) ->
            if (!HASH.matches(file.sha256)) {
                throw Refusal("$NAME: the hash of $name cannot be used", file.sha256, "64 digits in lower case")
            }
            if (file.size !in 0..MOST_BYTES - sum) {
                throw Refusal("$NAME: the size of $name cannot be used", file.size, "0 or more, together below 2^50")
            }
            sum + file.size
        }
    }

    companion object {
        const val NAME = "manifest.json"
        const val LIMIT = 4 shl 20 // bytes; what is made of them takes some twenty times as many
        private const val MOST_FILES = 10_000
        private const val MOST_BYTES = (1L shl 50) - 1
        private val HASH = Regex("[0-9a-f]{64}")

        /** The manifest of the bundle [root]. */
        fun read(root: File): Manifest {
            val file = File(root, NAME)
            if (!file.isFile) {
                throw Refusal("not a smolship bundle", "$root without $NAME", "a folder that `smolship export` wrote")
            }
            if (file.length() > LIMIT) {
                throw Refusal("$NAME is too large", "${file.length()} bytes", "at most $LIMIT")
            }
            val bytes = try {
                file.readBytes()
            } catch (error: IOException) {
                throw Refusal("$NAME cannot be read", error.message, "a readable file")
            }
            val found = read(bytes)
            for (target in found.targets.values) inside(root, "${target.folder}/${target.file}")
            found.files.keys.forEach { inside(root, it) }
            return found
        }

        /** The manifest that the file's [bytes] are. */
        fun read(bytes: ByteArray): Manifest {
            val json = try {
                Json.read(bytes, JsonLimits(size = LIMIT))
            } catch (error: JsonError) {
                throw Refusal("$NAME is not valid JSON", error.message, "a JSON object", "fetch the bundle again")
            }
            return ManifestReader(json).manifest()
        }
    }
}
