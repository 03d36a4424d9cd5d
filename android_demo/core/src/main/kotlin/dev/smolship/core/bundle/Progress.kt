package dev.smolship.core.bundle

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import java.io.ByteArrayOutputStream
import java.io.InputStream
import java.security.MessageDigest

/** Whoever watches a long work. */
fun interface Progress {
    /** [done] of [total] bytes, [file] at the moment; false ends the work with [Cancelled]. */
    fun at(file: String, done: Long, total: Long): Boolean

    /** What happened that nobody asked for, in words: a file that was altered, a download that begins again. */
    fun said(line: String) = Unit
}

/** Counts bytes over several files for a [Progress]. */
internal class Counter(private val progress: Progress, private val total: Long) {
    private var done = 0L

    fun add(file: String, bytes: Long) {
        done += bytes
        look(file, 0)
    }

    /** Tells of [more] bytes that are not sure yet. */
    fun look(file: String, more: Long) {
        if (!progress.at(file, done + more, total)) throw Cancelled()
    }
}

private const val BLOCK = 1 shl 18

/** Reads all that is there in blocks. */
internal inline fun InputStream.blocks(each: (ByteArray, Int) -> Unit) {
    val block = ByteArray(BLOCK)
    while (true) {
        val count = read(block)
        if (count < 0) return
        each(block, count)
    }
}

/** All that is there, of a file of at most [limit] bytes; [each] is called at every block. */
internal fun InputStream.all(file: String, limit: Int, each: () -> Unit = {}): ByteArray {
    val out = ByteArrayOutputStream()
    blocks { block, count ->
        out.write(block, 0, count)
        if (out.size() > limit) throw Refusal("$file is too large", "more than $limit bytes", "at most $limit")
        each()
    }
    return out.toByteArray()
}

internal fun sha256(): MessageDigest = MessageDigest.getInstance("SHA-256")

internal fun MessageDigest.hex(): String = digest().joinToString("") { "%02x".format(it) }

/** SHA-256 of a text's UTF-8, as hexadecimal digits. */
internal fun sha256(text: String): String = sha256().apply { update(text.toByteArray()) }.hex()
