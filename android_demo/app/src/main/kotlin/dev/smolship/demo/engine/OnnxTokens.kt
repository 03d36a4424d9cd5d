package dev.smolship.demo.engine

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import dev.smolship.core.Refusal
import dev.smolship.core.generate.TokenEngine
import java.io.File
import java.nio.Buffer
import java.nio.FloatBuffer
import java.nio.LongBuffer

/**
 * ONNX Runtime on a `model.onnx` as smolship writes it. Past and present of a layer are one buffer outside Java's heap;
 * the length of the attention mask says how much of it holds, so that rewinding costs nothing.
 *
 * @property kleidiai whether Arm's kernels of that name may be used
 */
class OnnxTokens(file: File, override val capacity: Int, threads: Int, kleidiai: Boolean = true) : TokenEngine {
    private val environment = OrtEnvironment.getEnvironment().apply { setTelemetry(false) }
    private val session =
        guarded("open ${file.name}") { environment.createSession(file.path, options(threads, kleidiai)) }
    private val memory = NativeMemory()
    private val caches = LinkedHashMap<String, OnnxTensor>() // by the input's name
    private val ones = memory.take(Long.SIZE_BYTES.toLong() * capacity).asLongBuffer()
    private val logits: FloatBuffer
    private val output: OnnxTensor

    override val vocab: Int
    override val chunk = CHUNK
    override val computes = products(File("/proc/cpuinfo").readText(), kleidiai)
    override var position = 0
        private set

    init {
        val inputs = session.inputInfo.mapValues { (_, node) -> (node.info as TensorInfo).shape }
        val names = inputs.keys.filter { it.startsWith(PAST) }
        val expected = setOf(IDS, MASK) + names
        val outputs = session.outputInfo
        if (inputs.keys != expected || outputs.keys != names.map(::present).toSet() + LOGITS) {
            val found = inputs.keys + outputs.keys
            throw Refusal("the model is not a decoder with a cache", found, "what smolship exports", AGAIN)
        }
        vocab = size(LOGITS, (outputs.getValue(LOGITS).info as TensorInfo).shape.last())
        for (name in names) {
            val shape = inputs.getValue(name) // [1, kv heads, past, head size], or a convolution's [1, rows, width]
            val (first, last) = size(name, shape[1]).toLong() to size(name, shape.last()).toLong()
            val convolution = shape.size == 3
            val sizes = if (convolution) longArrayOf(1, first, last) else longArrayOf(1, first, capacity.toLong(), last)
            val buffer = memory.take(sizes.fold(Float.SIZE_BYTES.toLong(), Math::multiplyExact)).asFloatBuffer()
            caches[name] = OnnxTensor.createTensor(environment, buffer, sizes)
        }
        repeat(capacity) { ones.put(it, 1) }
        logits = memory.take(Float.SIZE_BYTES.toLong() * vocab).asFloatBuffer()
        output = OnnxTensor.createTensor(environment, logits, longArrayOf(1, 1, vocab.toLong()))
    }

    override fun forward(ids: IntArray): FloatArray {
        for (start in ids.indices step CHUNK) {
            val part = ids.copyOfRange(start, minOf(start + CHUNK, ids.size))
            guarded("run the model") { call(part) }
            position += part.size
        }
        return FloatArray(vocab).also { logits.duplicate().get(it) }
    }

    override fun rewind(to: Int) {
        if (to !in 0..position) throw Refusal("cannot rewind to there", to, "0 to $position")
        position = to
    }

    override fun close() {
        caches.values.forEach(OnnxTensor::close)
        output.close()
        session.close()
        memory.close()
    }

    private fun call(ids: IntArray) {
        val tokens = LongBuffer.wrap(LongArray(ids.size) { ids[it].toLong() })
        val length = position + ids.size
        val mask = ones.duplicate()
        (mask as Buffer).limit(length) // LongBuffer's own is not on every Android
        val outputs = caches.mapKeys { (name, _) -> present(name) } + (LOGITS to output)
        OnnxTensor.createTensor(environment, tokens, longArrayOf(1, ids.size.toLong())).use { fed ->
            OnnxTensor.createTensor(environment, mask, longArrayOf(1, length.toLong())).use { holds ->
                session.run(caches + mapOf(IDS to fed, MASK to holds), outputs).close()
            }
        }
    }

    private fun size(name: String, size: Long): Int {
        if (size !in 1..LARGEST) {
            throw Refusal("the model's sizes cannot be used", "$name: $size", "1 to $LARGEST", AGAIN)
        }
        return size.toInt()
    }

    private companion object {
        const val PAST = "past_key_values."
        const val IDS = "input_ids"
        const val MASK = "attention_mask"
        const val LOGITS = "logits"
        const val CHUNK = 512 // longer prompts would hold all their activations at once
        const val LARGEST = 1L shl 24

        fun present(past: String) = past.replace("past_key_values", "present")

        fun options(threads: Int, kleidiai: Boolean) = OrtSession.SessionOptions().apply {
            setIntraOpNumThreads(threads)
            setInterOpNumThreads(1)
            setMemoryPatternOptimization(false) // it would be planned anew for each length of the mask
            if (!kleidiai) addConfigEntry("mlas.disable_kleidiai", "1")
        }
    }
}
