package dev.smolship.demo.engine

import ai.onnxruntime.OrtEnvironment
import dev.smolship.core.Refusal
import dev.smolship.core.bundle.inside
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.harness.TokenizerSource
import dev.smolship.core.json.Json
import org.pytorch.executorch.Module
import java.io.File

/** The engines of this app, by the names that bundles and plans give them. */
val ENGINES = setOf("executorch", "onnx")

/** How an engine's threads wait for one another: ONNX Runtime's go on looking, those of pthreadpool sleep soon. */
val WAITING = mapOf("executorch" to "briefly", "onnx" to "actively")

/** Opens what token ids are fed to: the artifact in [folder], by its entry [info] in the manifest. */
fun openTokens(engine: String, folder: File, info: Json.Object, threads: Int): TokenEngine {
    val file = inside(folder, info.need("file").text("info.file"))
    if (!file.isFile) throw Refusal("the artifact is missing", file, todo = "push the bundle again")
    return when (engine) {
        "executorch" -> {
            checkFrame(file)
            ExecuTorchTokens(file, threads)
        }
        "onnx" -> OnnxTokens(file, context(info), threads, info["kleidiai"] != Json.Bool(false))
        else -> throw Refusal("no such engine in this app", engine, ENGINES.joinToString())
    }
}

/**
 * The tokenizer that the chat has with the engine on the artifact in [folder], where it can be asked: ExecuTorch's runner
 * keeps its own to itself. GenAI's comes with a model, which is opened and closed for it.
 */
fun ownTokenizer(engine: String, folder: File): TokenizerSource? {
    if (engine != "onnx" || !File(folder, "genai_config.json").isFile) return null
    return TokenizerSource("onnxruntime-genai") { guarded("open its tokenizer") { GenAiTokenizer(folder) } }
}

/** Loads an engine's libraries; milliseconds that it took. */
fun loadLibraries(engine: String): Double {
    val start = System.nanoTime()
    guarded("load its libraries") {
        when (engine) {
            "executorch" -> Class.forName(Module::class.java.name)
            "onnx" -> OrtEnvironment.getEnvironment()
            else -> throw Refusal("no such engine in this app", engine, ENGINES.joinToString())
        }
    }
    return (System.nanoTime() - start) / NANOS_PER_MS
}

private fun context(info: Json.Object): Int {
    val context = info.need("context").whole("info.context")
    if (context !in 1..LARGEST) throw Refusal("the artifact's context cannot be used", context, "1 to $LARGEST tokens")
    return context.toInt()
}

private const val LARGEST = 1L shl 24
private const val NANOS_PER_MS = 1e6
