package dev.smolship.core.generate

import java.io.Closeable

/** A model with its cache, fed with token ids. One thread at a time. */
interface TokenEngine : Closeable {
    /** Size of the vocabulary. */
    val vocab: Int

    /** Tokens that the cache holds at most. */
    val capacity: Int

    /** Tokens that it holds. */
    val position: Int

    /** The earliest position, besides 0, that [rewind] reaches. */
    val earliest: Int get() = 0

    /** The most tokens that one call of the engine takes, where it feeds longer inputs in parts. */
    val chunk: Int? get() = null

    /** Further lengths, of a call or of the cache, from which on the engine computes in another way. */
    val blocks: List<Int> get() = emptyList()

    /** In what arithmetic, in the words of a bundle's probes, where the engine chooses that by the processor. */
    val computes: String? get() = null

    /** Appends [ids] to the cache; the last position's logits, [vocab] of them. They hold until the next call. */
    fun forward(ids: IntArray): FloatArray

    /** Forgets all tokens from position [to] on: 0, or [earliest] to [position]. */
    fun rewind(to: Int)
}

/** An engine with a tokenizer of its own, fed with text. One thread at a time. */
interface TextEngine : Closeable {
    /** Tokens that the cache holds at most. */
    val capacity: Int

    /**
     * Appends [text] to what the engine holds and answers until a stop token, [maxTokens], the end of the context, or
     * until [sink], which is given each piece of the answer, returns false. The engine then holds [text] and the answer.
     */
    fun generate(text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Boolean): Ending

    /** Forgets everything. */
    fun reset()
}

/** Text to token ids, and ids to the bytes that they stand for. */
interface Tokenizer {
    /** Ids of [text], with nothing put around it: the chat template has written all of it. */
    fun encode(text: String): IntArray

    /** Bytes of UTF-8 that token [id] stands for, perhaps part of a character; none for special tokens. */
    fun bytes(id: Int): ByteArray
}

/** The tokenizer that an engine brings along, as plans ask it. One thread at a time. */
interface EngineTokenizer : Closeable {
    /** Ids of [text], with what the model wants around a text where it is [special]; null where it has none. */
    fun encode(text: String, special: Boolean): IntArray?

    /** The text of [ids]. */
    fun decode(ids: IntArray): String
}

/** Why an answer ended. */
enum class End(val key: String) {
    STOP("stop"), // a stop token
    MAX_TOKENS("max_tokens"),
    CONTEXT("context"), // it is full
    INTERRUPTED("interrupted"), // by whoever reads the answer
}

/**
 * How an answer ended, and how long it took.
 *
 * @property promptTokens that were fed first
 * @property tokens of the answer, without the stop token
 * @property ttftSeconds until the first token was known, prefill included; null before
 * @property decodeTokensPerSecond after the first token; null with fewer than two
 * @property stopId the stop token
 */
data class Ending(
    val end: End,
    val promptTokens: Int?,
    val tokens: Int,
    val ttftSeconds: Double?,
    val decodeTokensPerSecond: Double?,
    val stopId: Int? = null,
)
