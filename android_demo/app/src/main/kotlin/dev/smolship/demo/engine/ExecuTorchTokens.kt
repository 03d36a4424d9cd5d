package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.generate.TokenEngine
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File

/**
 * ExecuTorch on a `.pte` as smolship writes it: `forward(ids [1, S], position [1]) -> logits [1, 1, V]`. The cache lies
 * inside the program and is written at the position that each call names, so that rewinding costs nothing.
 */
class ExecuTorchTokens(file: File, threads: Int) : TokenEngine {
    private val module = guarded("open ${file.name}") { Module.load(file.path, Module.LOAD_MODE_MMAP, threads) }

    override val vocab = number("get_vocab_size")
    override val capacity = number("get_max_context_len")
    override val chunk: Int = number("get_max_seq_len")
    override val blocks = listOf(256) // from there on one token, too, attends by matrix multiplications
    override var position = 0
        private set

    init {
        guarded("load its weights") { module.loadMethod("forward") }
    }

    override fun forward(ids: IntArray): FloatArray {
        var logits = FloatArray(0)
        for (start in ids.indices step chunk) {
            val part = ids.copyOfRange(start, minOf(start + chunk, ids.size))
            logits = guarded("run the model") { call(part) }
            position += part.size
        }
        return logits
    }

    override fun rewind(to: Int) {
        if (to !in 0..position) throw Refusal("cannot rewind to there", to, "0 to $position")
        position = to
    }

    override fun close() = module.destroy()

    private fun call(ids: IntArray): FloatArray {
        val tokens = Tensor.fromBlob(LongArray(ids.size) { ids[it].toLong() }, longArrayOf(1, ids.size.toLong()))
        val place = Tensor.fromBlob(longArrayOf(position.toLong()), longArrayOf(1))
        return module.forward(EValue.from(tokens), EValue.from(place))[0].toTensor().dataAsFloatArray
    }

    /** What one of the program's methods without inputs says. */
    private fun number(method: String): Int {
        val said = guarded("read $method") { module.execute(method)[0].toInt() }
        if (said !in 1..LARGEST) {
            throw Refusal("the program says something unusable of itself", "$method: $said", "1 to $LARGEST")
        }
        return said.toInt()
    }

    private companion object {
        const val LARGEST = 1L shl 24
    }
}
