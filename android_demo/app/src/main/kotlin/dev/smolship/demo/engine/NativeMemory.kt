package dev.smolship.demo.engine

import android.os.Build
import android.os.SharedMemory
import dev.smolship.core.Refusal
import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Buffers outside Java's heap, in the processor's byte order: Android keeps what `allocateDirect` gives inside the
 * heap, which a cache would not fit into. Pages are taken from the system as they are written. On Android 8.0, which has
 * no [SharedMemory], they lie in the heap.
 */
class NativeMemory : Closeable {
    private val taken = ArrayList<Pair<SharedMemory, ByteBuffer>>()

    fun take(bytes: Long): ByteBuffer {
        if (bytes !in 1..Int.MAX_VALUE) {
            val todo = "export with a smaller --context"
            throw Refusal("a layer's cache is too large", "$bytes bytes", "below 2 GiB", todo)
        }
        val buffer =
            guarded("hold a cache of $bytes bytes") {
                if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.O_MR1) {
                    mapped(bytes.toInt())
                } else {
                    ByteBuffer.allocateDirect(bytes.toInt())
                }
            }
        return buffer.order(ByteOrder.nativeOrder())
    }

    private fun mapped(bytes: Int): ByteBuffer {
        val memory = SharedMemory.create("smolship", bytes)
        return memory.mapReadWrite().also { taken.add(memory to it) }
    }

    override fun close() {
        for ((memory, buffer) in taken) {
            SharedMemory.unmap(buffer)
            memory.close()
        }
        taken.clear()
    }
}
