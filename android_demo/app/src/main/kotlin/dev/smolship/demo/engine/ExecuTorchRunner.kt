package dev.smolship.demo.engine

import org.pytorch.executorch.extension.llm.LlmCallback
import org.pytorch.executorch.extension.llm.LlmGenerationConfig
import org.pytorch.executorch.extension.llm.LlmModule
import java.io.Closeable
import java.io.File

/** A runner that is fed with text and has a cache: ExecuTorch's own, or a test's. */
interface LlmRunner : Closeable {
    /** Appends [prompt] to the cache and tells [callback] what follows, until [stop], a stop token or [tokens]. */
    fun generate(prompt: String, tokens: Int, temperature: Float, callback: LlmCallback)

    fun stop()

    fun reset()
}

/** ExecuTorch's runner for language models. */
class ExecuTorchRunner(program: File, tokenizer: File) : LlmRunner {
    private val module = LlmModule(program.path, tokenizer.path, BY_CALL).apply { load() }

    override fun generate(prompt: String, tokens: Int, temperature: Float, callback: LlmCallback) {
        // A length of the sequence is a number of new tokens where the program's prefill is shorter than its cache.
        val config = LlmGenerationConfig.create().echo(false).seqLen(tokens).temperature(temperature).build()
        module.generate(prompt, config, callback)
    }

    override fun stop() = module.stop()

    override fun reset() = module.resetContext()

    override fun close() = module.close()

    private companion object {
        const val BY_CALL = -1f // the temperature is each call's
    }
}
