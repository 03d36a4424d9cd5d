package dev.smolship.core.json

import java.math.BigInteger

/** What is not valid JSON, or not the JSON that was expected. */
class JsonError(message: String) : Exception(message)

/**
 * A JSON value. Whole numbers and numbers with a point or exponent are different values, as in Python; objects keep the
 * order of their keys.
 */
sealed interface Json {
    data object Null : Json

    data class Bool(val value: Boolean) : Json

    data class Whole(val value: BigInteger) : Json {
        constructor(value: Long) : this(BigInteger.valueOf(value))
        constructor(value: Int) : this(value.toLong())
    }

    data class Real(val value: Double) : Json

    data class Text(val value: String) : Json

    data class Array(val items: List<Json>) : Json

    data class Object(val fields: Map<String, Json>) : Json {
        constructor(vararg fields: Pair<String, Json>) : this(linkedMapOf(*fields))

        /** The field of this name, or null where there is none. */
        operator fun get(name: String): Json? = fields[name]

        /** The field of this name; refused where there is none. */
        fun need(name: String): Json =
            fields[name] ?: throw JsonError("no field '$name' among ${fields.keys.take(20)}: it must be there")
    }

    /** The kind of value, for messages. */
    val kind: String
        get() =
            when (this) {
                Null -> "null"
                is Bool -> "a boolean"
                is Whole -> "a whole number"
                is Real -> "a number with a point"
                is Text -> "a string"
                is Array -> "an array"
                is Object -> "an object"
            }

    /** This value as a string; [what] names it in the refusal. */
    fun text(what: String): String = (this as? Text)?.value ?: refuse(what, "a string")

    fun bool(what: String): Boolean = (this as? Bool)?.value ?: refuse(what, "true or false")

    fun items(what: String): List<Json> = (this as? Array)?.items ?: refuse(what, "an array")

    fun objectOf(what: String): Object = this as? Object ?: refuse(what, "an object")

    /** This value as a whole number of 64 bits. */
    fun whole(what: String): Long {
        val value = (this as? Whole)?.value ?: refuse(what, "a whole number")
        if (value.bitLength() > LONG_BITS) throw JsonError("$what: got $value, expected a number of 64 bits")
        return value.toLong()
    }

    /** This value as a number, whole or not. */
    fun real(what: String): Double = when (this) {
        is Real -> value
        is Whole -> value.toDouble().takeIf { it.isFinite() } ?: refuse(what, "a number within a double's range")
        else -> refuse(what, "a number")
    }

    private fun refuse(what: String, expected: String): Nothing =
        throw JsonError("$what: got $kind, expected $expected")

    companion object {
        private const val LONG_BITS = 63

        /** Reads one value from UTF-8; whatever is not exactly JSON, or beyond [limits], is refused. */
        fun read(bytes: ByteArray, limits: JsonLimits = JsonLimits()): Json {
            if (bytes.size > limits.size) {
                throw JsonError("JSON of ${bytes.size} bytes, at most ${limits.size} are read")
            }
            return read(utf8(bytes), limits)
        }

        /** Reads one value from text. */
        fun read(text: String, limits: JsonLimits = JsonLimits()): Json = JsonReader(text, limits).document()
    }
}

/** Bounds on what is read: size in bytes or characters, nesting, and digits of one number. */
data class JsonLimits(val size: Int = 64 shl 20, val depth: Int = 600, val digits: Int = 1000)
