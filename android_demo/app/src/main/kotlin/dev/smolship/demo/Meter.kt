package dev.smolship.demo

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import java.util.concurrent.ScheduledExecutorService
import java.util.concurrent.TimeUnit

/**
 * What the device says of itself.
 *
 * @property appBytes of this process, shared pages divided (PSS)
 * @property low whether the system begins to end processes
 * @property thermal 0 (none) to 6 (shutdown); null before Android 10
 */
data class Reading(val appBytes: Long, val freeBytes: Long, val low: Boolean, val thermal: Int?)

/** Reads memory and thermal state every two seconds while a screen looks at it. */
class Meter(private val context: Context, private val screen: Executor, private val show: (Reading) -> Unit) {
    private var clock: ScheduledExecutorService? = null

    fun start() {
        val clock = Executors.newSingleThreadScheduledExecutor()
        this.clock = clock
        val look = Runnable {
            val now = read()
            screen.execute { if (this.clock === clock) show(now) }
        }
        clock.scheduleWithFixedDelay(look, 0, 2, TimeUnit.SECONDS)
    }

    fun stop() {
        clock?.shutdownNow()
        clock = null
    }

    private fun read(): Reading {
        val device = context.memoryInfo()
        val thermal =
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
                (context.getSystemService(Context.POWER_SERVICE) as PowerManager).currentThermalStatus
            } else {
                null
            }
        return Reading(Debug.getPss() * KILOBYTE, device.availMem, device.lowMemory, thermal)
    }

    private companion object {
        const val KILOBYTE = 1024L
    }
}

private fun Context.memoryInfo(): ActivityManager.MemoryInfo {
    val info = ActivityManager.MemoryInfo()
    (getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(info)
    return info
}

/** Bytes that the device has free, with what it can take from apps in the background. */
fun Context.freeMemory() = memoryInfo().availMem
