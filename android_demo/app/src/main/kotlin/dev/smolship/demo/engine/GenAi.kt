package dev.smolship.demo.engine

import ai.onnxruntime.genai.GenAI
import ai.onnxruntime.genai.GenAIException
import ai.onnxruntime.genai.Generator
import ai.onnxruntime.genai.GeneratorParams
import ai.onnxruntime.genai.Model
import ai.onnxruntime.genai.Tokenizer
import dev.smolship.core.generate.EngineTokenizer
import dev.smolship.core.generate.Sampling
import java.io.Closeable
import java.io.File

/** A sequence of tokens that grows and is chosen from: GenAI's generator, or a test's. */
interface TokenGenerator : Closeable {
    fun append(ids: IntArray)

    /** Chooses and appends the next token; it is fed with the one after it. */
    fun next(): Int

    fun rewind(to: Int)
}

/** A model with its tokenizer: GenAI's, or a test's. */
interface GeneratingModel : Closeable {
    fun encode(text: String): IntArray

    /** What each token in turn completes as text. */
    fun stream(): (Int) -> String

    fun generator(sampling: Sampling): TokenGenerator
}

/** GenAI's tokenizer of the bundle's `onnx` folder. It puts around a text what the model wants there, and cannot do else. */
class GenAiTokenizer(folder: File) : EngineTokenizer {
    private val model: Model

    init {
        GenAI.setTelemetry(false)
        model = Model(folder.path)
    }

    private val tokenizer = Tokenizer(model)

    override fun encode(text: String, special: Boolean): IntArray? {
        if (!special) return null
        return try {
            tokenizer.encode(text).use { it.getSequence(0) }
        } catch (_: GenAIException) {
            null
        }
    }

    override fun decode(ids: IntArray): String = tokenizer.decode(ids)

    override fun close() {
        tokenizer.close()
        model.close()
    }
}

/** ONNX Runtime GenAI on the bundle's `onnx` folder. */
class GenAi(folder: File, private val capacity: Int) : GeneratingModel {
    private val model: Model

    init {
        GenAI.setTelemetry(false)
        model = Model(folder.path)
    }

    private val tokenizer = Tokenizer(model)

    override fun encode(text: String): IntArray = tokenizer.encode(text).use { it.getSequence(0) }

    override fun stream(): (Int) -> String = tokenizer.createStream()::decode

    override fun generator(sampling: Sampling): TokenGenerator = GeneratorParams(model).use { params ->
        params.setSearchOption("max_length", capacity.toDouble())
        params.setSearchOption("do_sample", sampling.temperature > 0)
        if (sampling.temperature > 0) {
            params.setSearchOption("temperature", sampling.temperature)
            params.setSearchOption("top_k", sampling.topK.toDouble())
            params.setSearchOption("top_p", sampling.topP)
            sampling.seed?.let { params.setSearchOption("random_seed", it.toDouble()) }
        }
        params.setSearchOption("repetition_penalty", sampling.repetitionPenalty)
        Running(Generator(model, params))
    }

    override fun close() {
        tokenizer.close()
        model.close()
    }

    private class Running(private val generator: Generator) : TokenGenerator {
        override fun append(ids: IntArray) = generator.appendTokens(ids)

        override fun next(): Int {
            generator.generateNextToken()
            return generator.getLastTokenInSequence(0)
        }

        override fun rewind(to: Int) = generator.rewindTo(to.toLong())

        override fun close() = generator.close()
    }
}
