package dev.smolship.core.template

import java.time.LocalDateTime

/** What a template cannot be rendered for: its own error, a limit, or what this evaluator does not do. */
class TemplateError(message: String, cause: Throwable? = null) : Exception(message, cause)

/**
 * Bounds of one rendering. A character counts as one of [memory], an element of a list as eight. [depth] is of calls
 * and [nesting] of values, about where Python's own recursion ends.
 */
data class Limits(
    val steps: Long = 5_000_000,
    val memory: Long = 32L shl 20,
    val output: Long = 4L shl 20,
    val depth: Int = 199,
    val nesting: Int = 900,
)

/** Refuses what Python or jinja refuses, or what is beyond this evaluator. */
internal fun refuse(message: String): Nothing = throw TemplateError(message)

/** Refuses what Python would do and this evaluator does not, so that nothing is rendered differently. */
internal fun unsupported(what: String): Nothing =
    refuse("$what is not supported by this app's renderer: render this template on a computer")

/** One rendering's clock, account and limits. */
internal class Machine(val limits: Limits, val now: LocalDateTime) {
    private var steps = limits.steps
    private var memory = limits.memory
    private var depth = 0
    private var nesting = 0

    /** Counts work; long texts count once for each [SCAN] characters looked at. */
    fun step(count: Long = 1) {
        steps -= count
        if (steps < 0) refuse("the template takes more than ${limits.steps} steps")
    }

    fun scan(size: Int) = step(1L + size / SCAN)

    /** Counts looking for texts in a text: the platform's search may look at each again at every character. */
    fun search(value: Any?, parts: Iterable<Any?>) {
        val size = textOf(value)?.length ?: 0
        step(1L + size / SCAN)
        for (part in parts) step(size.toLong() * (textOf(part)?.length ?: 0) / SEARCH)
    }

    /** Asks for room before something of this size is made. */
    fun room(size: Long) {
        if (size < 0 || size > memory) refuse("the template makes more than ${limits.memory} characters of values")
        memory -= size
        step(size / SCAN)
    }

    fun roomForItems(count: Long) = room(if (count > memory) count else count * ITEM)

    /** Runs a macro, a recursive loop or the body of a call block, of which not too many may be open at a time. */
    fun <T> deeper(body: () -> T): T {
        if (++depth > limits.depth) refuse("the template is nested more than ${limits.depth} deep")
        return body().also { depth-- }
    }

    /** Looks into a value, of which not too many may be inside of one another. */
    fun <T> inside(body: () -> T): T {
        if (++nesting > limits.nesting) refuse("values are nested more than ${limits.nesting} deep")
        return body().also { nesting-- }
    }

    private companion object {
        const val SCAN = 16
        const val SEARCH = 64
        const val ITEM = 8L
    }
}
