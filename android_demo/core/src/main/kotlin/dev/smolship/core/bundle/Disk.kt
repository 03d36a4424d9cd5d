package dev.smolship.core.bundle

import dev.smolship.core.Refusal
import java.io.File
import java.io.IOException

/** Bytes that stay free: a phone without any is of no use to its owner. */
private const val RESERVE = 64L shl 20

/** Refuses to begin where [needed] bytes are not free in [folder], by what [usable] says. */
internal fun needsRoom(folder: File, needed: Long, usable: (File) -> Long) {
    val free = usable(folder)
    if (needed > free - RESERVE) {
        throw Refusal(
            "there is too little storage",
            "${megabytes(free)} MB free",
            "${megabytes(needed + RESERVE)} MB",
            "remove a bundle or something else, and try again",
        )
    }
}

private fun megabytes(bytes: Long) = (bytes + 999_999) / 1_000_000

/** Turns a failed write to [file] into a refusal that says why. */
internal fun <T> writing(file: File, usable: (File) -> Long, work: () -> T): T = try {
    work()
} catch (error: IOException) {
    val folder = generateSequence(file.parentFile) { it.parentFile }.firstOrNull { it.exists() }
    if (folder != null && usable(folder) < RESERVE / 64) {
        throw Refusal("the storage is full", error.message, todo = "free some of it, and try again")
    }
    throw Refusal("${file.name} cannot be written", error.message)
}

/** Makes the folder that [file] will lie in. */
internal fun makeFolderOf(file: File) {
    val folder = file.parentFile
    if (folder != null && !folder.isDirectory && !folder.mkdirs()) throw IOException("no folder can be made at $folder")
}
