package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.bundle.Store
import dev.smolship.core.bundle.Target
import dev.smolship.core.chat.TemplateRendering
import dev.smolship.core.chat.TextChat
import dev.smolship.core.generate.Sampling
import dev.smolship.core.generate.TextEngine
import dev.smolship.core.json.Json
import dev.smolship.demo.bundles.Checked
import dev.smolship.demo.chat.Choice
import dev.smolship.demo.chat.Opened
import dev.smolship.demo.chat.Opener
import java.io.File

/**
 * Opens a bundle of [store] to talk with, through the runners that come with the engines: they have tokenizers.
 *
 * @property available bytes of memory that are free
 */
class BundleOpener(private val store: Store, private val checked: Checked, private val available: () -> Long) :
    Opener {
    override fun open(choice: Choice): Opened {
        val root = store.folder(choice.bundle)
        if (!root.isDirectory) throw Refusal("the bundle is gone", choice.bundle, todo = "choose another one")
        val manifest = Manifest.read(root)
        val target =
            manifest.targets[choice.target]
                ?: throw Refusal("the bundle has no such target", choice.target, manifest.targets.keys.joinToString())
        checked.check(root, manifest, target.folder)
        mustFit(manifest, target)
        val rendering = TemplateRendering.of(root, manifest, variables(choice))
        val engine = engine(root, manifest, target)
        val (sampling, note) = sampling(target.engine, manifest.generation.sampling)
        return Opened(TextChat(engine, rendering, sampling), listOfNotNull(note), engine)
    }

    private fun engine(root: File, manifest: Manifest, target: Target): TextEngine {
        val folder = File(root, target.folder)
        val ends = manifest.generation.ends
        return when (target.engine) {
            "executorch" -> {
                val program = File(folder, target.file)
                checkFrame(program)
                val runner = guarded("open ${target.file}") { ExecuTorchRunner(program, File(root, "tokenizer.json")) }
                val texts = ends.filter { it.text.isNotEmpty() }.associate { it.text to it.id }
                ExecuTorchText(runner, manifest.context, texts)
            }
            "onnx" -> {
                val model = guarded("open ${target.file}") { GenAi(folder, manifest.context) }
                GenAiText(model, manifest.context, manifest.generation.endIds)
            }
            else -> throw Refusal("no such engine in this app", target.engine, ENGINES.joinToString())
        }
    }

    /** Refuses a model that the device has no memory for by its size alone: the system would end the app. */
    private fun mustFit(manifest: Manifest, target: Target) {
        val size = manifest.files.filterKeys { it.startsWith("${target.folder}/") }.values.sumOf { it.size }
        val free = available()
        if (size > free) {
            throw Refusal(
                "there is too little memory for this model",
                "${megabytes(free)} MB free",
                "${megabytes(size)} MB",
                "close other apps, or take a smaller model",
            )
        }
    }

    companion object {
        /** The template's own variable by which models are told not to think first. */
        const val THINKING = "enable_thinking"

        private fun variables(choice: Choice): Map<String, Json> =
            if (choice.thinking) emptyMap() else mapOf(THINKING to Json.Bool(false))

        private fun megabytes(bytes: Long) = bytes / 1_000_000

        /** What of the recommended [sampling] the engine's runner can do, and what it cannot, in words. */
        internal fun sampling(engine: String, sampling: Sampling): Pair<Sampling, String?> {
            val random = sampling.temperature > 0
            val left = ArrayList<String>()
            if (engine == "executorch") {
                if (random && sampling.topK > 0) left += "top_k ${sampling.topK}"
                if (random && sampling.topP < 1) left += "top_p ${sampling.topP}"
                if (sampling.repetitionPenalty != 1.0) left += "repetition_penalty ${sampling.repetitionPenalty}"
            }
            if (random && sampling.minP > 0) left += "min_p ${sampling.minP}"
            val kept = if (engine == "executorch") {
                Sampling(temperature = sampling.temperature)
            } else {
                sampling.copy(minP = 0.0)
            }
            val note = "The engine's runner does not know what the model's makers recommend: ${left.joinToString()}."
            return kept to note.takeIf { left.isNotEmpty() }
        }
    }
}
