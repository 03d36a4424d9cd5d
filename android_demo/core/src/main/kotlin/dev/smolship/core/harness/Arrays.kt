package dev.smolship.core.harness

import dev.smolship.core.Record
import dev.smolship.core.Refusal
import dev.smolship.core.json.Json
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64

/** Arrays of a plan or a result: {"dtype", "shape", "base64"}, little-endian and in C order. */
internal class Blob(val dtype: String, val shape: List<Int>, val bytes: ByteArray) {
    fun toJson(): Json = Json.Object(
        "dtype" to Json.Text(dtype),
        "shape" to Json.Array(shape.map { Json.Whole(it) }),
        "base64" to Json.Text(Base64.getEncoder().encodeToString(bytes)),
    )

    fun ints(): IntArray = IntArray(bytes.size / Int.SIZE_BYTES).also { buffer(bytes).asIntBuffer().get(it) }

    companion object {
        fun of(dtype: String, vararg shape: Int, fill: (ByteBuffer) -> Unit): Blob {
            val size = if (dtype == "float64") Double.SIZE_BYTES else Float.SIZE_BYTES
            val bytes = ByteArray(shape.fold(size, Math::multiplyExact))
            fill(buffer(bytes))
            return Blob(dtype, shape.toList(), bytes)
        }

        /** An array of 4-byte numbers, untrusted. */
        fun read(given: Record, dtype: String, dimensions: Int): Blob {
            given.only("dtype", "shape", "base64")
            if (given.text("dtype") != dtype) given.refuse("dtype", dtype)
            val shape = given.ints("shape").toList()
            if (shape.size != dimensions || shape.any { it < 0 }) given.refuse("shape", "$dimensions sizes")
            val code = given.text("base64")
            val bytes = try {
                if (code.length % 4 != 0) null else Base64.getDecoder().decode(code)
            } catch (_: IllegalArgumentException) {
                null
            } ?: given.refuse("base64", "base64")
            var size = Int.SIZE_BYTES.toLong()
            for (count in shape) size = minOf(size * count, Int.MAX_VALUE.toLong() + 1)
            if (size != bytes.size.toLong()) given.refuse("shape", "that of ${bytes.size} bytes")
            return Blob(dtype, shape, bytes)
        }

        private fun buffer(bytes: ByteArray) = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    }
}

/** Rows of whole numbers. */
class Table internal constructor(private val blob: Blob) {
    private val values = blob.ints()
    val rows: Int get() = blob.shape[0]
    val columns: Int get() = blob.shape[1]
    internal val least: Int get() = values.minOrNull() ?: 0
    internal val greatest: Int get() = values.maxOrNull() ?: -1

    fun row(at: Int): IntArray = values.copyOfRange(at * columns, (at + 1) * columns)

    internal fun toJson(): Json = blob.toJson()

    internal companion object {
        fun read(given: Record): Table = Table(Blob.read(given, "int32", 2))
    }
}

/** Numbers of so many columns, row by row, for a result. */
internal fun rows(values: List<FloatArray>, columns: Int): Blob =
    Blob.of("float32", values.size, columns) { out -> values.forEach { row -> row.forEach(out::putFloat) } }

internal fun floats(values: List<Float>): Blob = Blob.of("float32", values.size) { values.forEach(it::putFloat) }

internal fun doubles(values: List<Double>): Blob = Blob.of("float64", values.size) { values.forEach(it::putDouble) }

internal fun ids(values: Iterable<Int>): Json = Json.Array(values.map { Json.Whole(it) })
