package dev.smolship.core

import dev.smolship.core.json.Json

/** The largest whole number up to which all are floating-point numbers, too. */
private const val LARGEST = 1L shl 53

/**
 * An object of an untrusted file, whose fields are read with their types looked at; a field that is not there counts as
 * null.
 *
 * @property file its name in refusals
 * @property at where the object lies in the file, empty at its top
 */
class Record(value: Json, val file: String, val at: String, private val todo: String) {
    private val fields: Map<String, Json> =
        (value as? Json.Object)?.fields
            ?: throw wrong(if (at.isEmpty()) file else "$file: $at", value, "an object", todo)

    /** Refuses fields of other names than [known]. */
    fun only(vararg known: String): Record {
        val strange = fields.keys - known.toSet()
        if (strange.isEmpty()) return this
        throw Refusal("${where()} has unknown keys", strange.sorted(), known.joinToString(", "), todo)
    }

    val names: Set<String> get() = fields.keys

    fun raw(name: String): Json = fields[name] ?: Json.Null

    fun text(name: String): String = (raw(name) as? Json.Text)?.value ?: refuse(name, "a text")

    fun textOrNull(name: String): String? = if (isNull(name)) null else text(name)

    fun bool(name: String): Boolean = (raw(name) as? Json.Bool)?.value ?: refuse(name, "true or false")

    fun long(name: String, within: LongRange = Long.MIN_VALUE..Long.MAX_VALUE): Long {
        val found = (raw(name) as? Json.Whole)?.value ?: refuse(name, "a whole number")
        val value = if (found.bitLength() < Long.SIZE_BITS) found.toLong() else refuse(name, "a number of 64 bits")
        return if (value in within) value else refuse(name, "${within.first} to ${within.last}")
    }

    fun longOrNull(name: String): Long? = if (isNull(name)) null else long(name)

    fun int(name: String, within: IntRange = Int.MIN_VALUE..Int.MAX_VALUE): Int =
        long(name, within.first.toLong()..within.last.toLong()).toInt()

    fun intOrNull(name: String): Int? = if (isNull(name)) null else int(name)

    /** A whole number of any size; what an Int cannot hold is the nearest that it can. */
    fun count(name: String): Int {
        val found = (raw(name) as? Json.Whole)?.value ?: refuse(name, "a whole number")
        return found.max(Int.MIN_VALUE.toBigInteger()).min(Int.MAX_VALUE.toBigInteger()).toInt()
    }

    fun double(name: String): Double = when (val value = raw(name)) {
        is Json.Real -> value.value.takeIf { it.isFinite() }
        is Json.Whole -> value.value.takeIf { it.abs() <= LARGEST.toBigInteger() }?.toDouble()
        else -> null
    } ?: refuse(name, "a finite number")

    fun record(name: String): Record = Record(raw(name), file, place(name), todo)

    fun recordOrNull(name: String): Record? = if (isNull(name)) null else record(name)

    fun items(name: String): List<Json> = (raw(name) as? Json.Array)?.items ?: refuse(name, "a list")

    /** Each of a list's objects. */
    fun <T> records(name: String, read: (Record) -> T): List<T> =
        items(name).mapIndexed { i, item -> read(Record(item, file, "${place(name)}[$i]", todo)) }

    fun texts(name: String): List<String> = items(name).map { (it as? Json.Text)?.value ?: refuse(name, "texts") }

    fun ints(name: String): IntArray = IntArray(items(name).size).also { out ->
        items(name).forEachIndexed { i, item ->
            val value = (item as? Json.Whole)?.value?.takeIf { it.bitLength() < Int.SIZE_BITS }
            out[i] = value?.toInt() ?: refuse(name, "whole numbers of 32 bits")
        }
    }

    /** Each of an object's objects, by its key. */
    fun <T> map(name: String, read: (Record) -> T): Map<String, T> {
        val inner = record(name)
        return inner.fields.keys.associateWith { read(inner.record(it)) }
    }

    private fun isNull(name: String) = raw(name) == Json.Null

    private fun place(name: String) = if (at.isEmpty()) name else "$at.$name"

    private fun where() = if (at.isEmpty()) file else "$file: $at"

    fun refuse(name: String, expected: String): Nothing =
        throw wrong("$file: ${place(name)}", raw(name), expected, todo)

    private companion object {
        fun wrong(where: String, value: Json, expected: String, todo: String): Refusal {
            val got = when (value) {
                is Json.Object, is Json.Array, Json.Null -> value.kind
                is Json.Text -> "\"${Refusal.clip(value.value)}\""
                is Json.Bool -> value.value.toString()
                is Json.Whole -> Refusal.clip(value.value.toString())
                is Json.Real -> value.value.toString()
            }
            return Refusal("$where cannot be used", got, expected, todo)
        }
    }
}
