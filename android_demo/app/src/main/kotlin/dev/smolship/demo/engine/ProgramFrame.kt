package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Refuses a file that is not framed as a program of ExecuTorch's: magic numbers, and the lengths of program and weights.
 * ExecuTorch itself can end the process on such a file.
 */
fun checkFrame(file: File) {
    val head = ByteArray(HEAD)
    val size = file.length()
    if (size < HEAD) throw bad(file, "it has $size bytes")
    RandomAccessFile(file, "r").use { it.readFully(head) }
    if (String(head, 4, 2, Charsets.US_ASCII) != "ET" || String(head, 8, 4, Charsets.US_ASCII) != "eh00") {
        throw bad(file, "it does not begin as a program does")
    }
    val numbers = ByteBuffer.wrap(head).order(ByteOrder.LITTLE_ENDIAN)
    val program = numbers.getLong(16)
    val base = numbers.getLong(24) // where the weights begin
    val data = numbers.getLong(32)
    if (program < 0 || base !in program..size || data != size - base) {
        throw bad(file, "it has $size bytes, and claims $data after $base")
    }
}

private const val HEAD = 40

private fun bad(file: File, why: String) =
    Refusal("not a program that ExecuTorch can open", "${file.name}: $why", "a .pte file that smolship wrote", AGAIN)
