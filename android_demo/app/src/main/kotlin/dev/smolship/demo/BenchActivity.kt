package dev.smolship.demo

import ai.onnxruntime.OrtEnvironment
import android.app.Activity
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.Process
import android.view.View
import android.widget.ProgressBar
import android.widget.TextView
import dev.smolship.core.Refusal
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.harness.Machine
import dev.smolship.core.harness.TokenizerSource
import dev.smolship.core.json.Json
import dev.smolship.demo.bench.BenchRun
import dev.smolship.demo.bench.Device
import dev.smolship.demo.bench.Request
import dev.smolship.demo.engine.WAITING
import dev.smolship.demo.engine.loadLibraries
import dev.smolship.demo.engine.openTokens
import dev.smolship.demo.engine.ownTokenizer
import java.io.File
import java.util.concurrent.atomic.AtomicReference

/**
 * Executes a plan of the harness for a host:
 *
 *     adb push plan.json /sdcard/Android/data/dev.smolship.demo/files/bench/plan.json
 *     adb shell am start -n dev.smolship.demo/.BenchActivity --es plan bench/plan.json --es result bench/result.json \
 *         --es folder bundles/smollm2/executorch --es id 7
 *
 * Paths are in full or below that `files` folder, and nowhere else; `folder` holds the artifact. `am start` comes back at
 * once; whether the run is over, and how it went, stands in files beside the result: [dev.smolship.demo.bench.BenchFiles].
 * `am force-stop dev.smolship.demo` ends a run. The screen stays on, since a phone that sleeps computes slowly. Only
 * holders of the permission DUMP can start this: adb's shell, and no other app.
 */
class BenchActivity : Activity() {
    private lateinit var text: TextView
    private lateinit var bar: ProgressBar

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.bench)
        text = findViewById(R.id.text)
        bar = findViewById(R.id.bar)
        if (saved == null) begin(intent) // another process would do the same work again, uncalled
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        setIntent(intent)
        begin(intent)
    }

    private fun begin(intent: Intent) {
        val request = Request(
            intent.getStringExtra("plan"),
            intent.getStringExtra("result"),
            intent.getStringExtra("folder"),
            intent.getStringExtra("id").orEmpty(),
        )
        if (request.result == null) return say(getString(R.string.bench_by_adb))
        val other = running.getAndUpdate { it ?: request }
        if (other == null) return demo.chat.giveWay { Thread({ run(request) }, "bench").start() }
        say(getString(R.string.bench_busy))
        if (other.result != request.result) {
            refused {
                val why = Refusal(getString(R.string.bench_busy), other.id)
                BenchRun(demo.shared, ThisDevice(), Process.myPid()).refuse(request, why)
            }
        }
    }

    private fun run(request: Request) {
        refused {
            val result = BenchRun(demo.shared, ThisDevice(), Process.myPid()).run(request) { stage, done, total ->
                runOnUiThread { show(stage, done, total) }
            }
            runOnUiThread { say(getString(R.string.bench_done, result)) }
        }
        running.set(null)
    }

    /** Does [action]; whatever goes wrong, an error of native code included, is shown. The host reads it in the file. */
    private fun refused(action: () -> Unit) {
        try {
            action()
        } catch (error: Throwable) {
            runOnUiThread { say(getString(R.string.bench_failed, error.message ?: error.toString())) }
        }
    }

    private fun show(stage: String, done: Int, total: Int) {
        text.text = getString(R.string.bench_running, stage, done, total)
        bar.visibility = View.VISIBLE
        bar.max = total
        bar.progress = done
    }

    private fun say(words: String) {
        text.text = words
        bar.visibility = View.GONE
    }

    private inner class ThisDevice : Device {
        override fun load(engine: String) = loadLibraries(engine)

        override fun open(engine: String, folder: File, info: Json.Object, threads: Int): TokenEngine =
            openTokens(engine, folder, info, threads)

        override fun tokenizer(engine: String, folder: File): TokenizerSource? = ownTokenizer(engine, folder)

        override fun machine(engine: String): Machine {
            val version = if (engine == "onnx") {
                OrtEnvironment.getEnvironment().version
            } else {
                getString(R.string.executorch_version)
            }
            val library = if (engine == "onnx") "onnxruntime" else engine
            return Machine(
                mapOf("app" to VERSION, "android" to Build.VERSION.RELEASE, library to version),
                "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT}), ${Build.FINGERPRINT}",
                if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) {
                    "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}"
                } else {
                    Build.HARDWARE
                },
                WAITING.getValue(engine),
            )
        }
    }

    private companion object {
        const val VERSION = "0.1"
        val running = AtomicReference<Request>() // of this process; null where nothing is
    }
}
