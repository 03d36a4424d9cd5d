package dev.smolship.core.harness

import dev.smolship.core.bundle.hex
import dev.smolship.core.bundle.sha256
import dev.smolship.core.generate.argmax
import dev.smolship.core.json.Json
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.exp
import kotlin.math.ln

/** A sketch of the logits at some positions, made one by one; [columns] ids are wanted of each, digests where [exact]. */
internal class Seen(private val columns: Int, private val exact: Boolean) {
    private val lse = ArrayList<Double>()
    private val best = ArrayList<Int>()
    private val peak = ArrayList<Float>()
    private val at = ArrayList<FloatArray>()
    private val digests = ArrayList<String>()

    fun add(logits: FloatArray, wanted: IntArray) {
        val greatest = argmax(logits)
        lse.add(logSumExp(logits, logits[greatest]))
        best.add(greatest)
        peak.add(logits[greatest])
        at.add(FloatArray(wanted.size) { logits[wanted[it]] })
        if (exact) digests.add(digest(logits))
    }

    fun toJson(): Json = Json.Object(
        "lse" to doubles(lse).toJson(),
        "best" to ids(best),
        "peak" to floats(peak).toJson(),
        "at" to rows(at, columns).toJson(),
        "digests" to Json.Array(digests.map { Json.Text(it) }),
    )

    private fun logSumExp(logits: FloatArray, peak: Float): Double {
        val most = peak.toDouble()
        var sum = 0.0
        for (logit in logits) sum += exp(logit - most)
        return most + ln(sum)
    }

    /** SHA-256 of logits, in which a NaN equals any other and 0 equals -0. */
    private fun digest(logits: FloatArray): String {
        val bytes = ByteBuffer.allocate(logits.size * Float.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN)
        for (logit in logits) bytes.putInt((logit + 0f).toBits()) // toBits knows one NaN
        return sha256().apply { update(bytes.array()) }.hex()
    }
}
