package dev.smolship.demo.bench

import dev.smolship.core.Refusal
import dev.smolship.core.generate.TokenEngine
import dev.smolship.core.harness.Executor
import dev.smolship.core.harness.Machine
import dev.smolship.core.harness.Plan
import dev.smolship.core.harness.TokenizerSource
import dev.smolship.core.harness.Watch
import dev.smolship.core.harness.artifactDigest
import dev.smolship.core.json.Json
import dev.smolship.core.json.write
import java.io.File
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit

/** What opens engines and knows the machine: Android's, or a test's. */
interface Device {
    /** Loads an engine's libraries; milliseconds that it took. */
    fun load(engine: String): Double

    fun open(engine: String, folder: File, info: Json.Object, threads: Int): TokenEngine

    fun machine(engine: String): Machine

    /** The tokenizer that the chat has with the engine on the artifact in [folder]; null where it cannot be asked. */
    fun tokenizer(engine: String, folder: File): TokenizerSource? = null
}

/**
 * What a host asks for: paths in full, or below the app's folder.
 *
 * @property folder that holds the artifact, such as bundles/smollm2/onnx
 * @property id of the run, which is said again in what is written
 */
data class Request(val plan: String?, val result: String?, val folder: String?, val id: String)

/** Executes one plan file and writes its result file, or the error: see [BenchFiles]. */
class BenchRun(private val home: File, private val device: Device, private val pid: Int) {
    /** Says that this request is not executed, where the host looks for its result. */
    fun refuse(request: Request, why: Refusal) =
        BenchFiles(BenchFiles.below(home, request.result, "result"), request.id.take(LONGEST_ID), pid).failed(why)

    /** Where the result lies then. Throws what went wrong, which is written too where there is a usable path for it. */
    fun run(request: Request, show: (String, Int, Int) -> Unit): File {
        val result = BenchFiles.below(home, request.result, "result")
        val files = BenchFiles(result, request.id.take(LONGEST_ID), pid)
        result.parentFile?.mkdirs()
        try {
            files.begin()
            files.done(beating(files) { execute(request, files, show) })
            return result
        } catch (error: Throwable) { // whatever it is, the host waits for an answer
            files.failed(error)
            throw error
        }
    }

    /** Does [action], while another thread says that the run goes on: opening and hashing take long, and say nothing. */
    private fun <T> beating(files: BenchFiles, action: () -> T): T {
        val beats = Executors.newSingleThreadScheduledExecutor()
        beats.scheduleWithFixedDelay(files::beat, PERIOD_MS, PERIOD_MS, TimeUnit.MILLISECONDS)
        try {
            return action()
        } finally {
            beats.shutdown() // without an interrupt: a file may be half written
            beats.awaitTermination(PATIENCE_S, TimeUnit.SECONDS)
        }
    }

    private fun execute(request: Request, files: BenchFiles, show: (String, Int, Int) -> Unit): ByteArray {
        val file = BenchFiles.below(home, request.plan, "plan")
        val folder = BenchFiles.below(home, request.folder, "folder")
        if (!file.isFile) throw Refusal("there is no plan", file, "a file", "push it there")
        val size = file.length()
        if (size > Plan.LIMIT) throw Refusal("the plan is too large", "$size bytes", "at most ${Plan.LIMIT}")
        val plan = Plan.read(file.readBytes())
        if (plan.arithmetic.isNotEmpty()) {
            throw Refusal("the app's engines compute in their own arithmetic alone", plan.arithmetic, "none named")
        }
        files.at("hash", 0, 0)
        val artifact = artifactDigest(folder, plan.info)
        val importMs = device.load(plan.engine)
        val watch =
            object : Watch {
                override fun at(stage: String, done: Int, total: Int) {
                    files.at(stage, done.toLong(), total.toLong())
                    show(stage, done, total)
                }
            }
        val tokenizer = device.tokenizer(plan.engine, folder)
        val executor = Executor(device.machine(plan.engine), importMs = importMs, tokenizer = tokenizer)
        val result = executor.execute(plan, artifact, watch) {
            device.open(plan.engine, folder, plan.info, plan.threads)
        }
        return (result.toJson().write() + "\n").toByteArray()
    }

    private companion object {
        const val LONGEST_ID = 200
        const val PERIOD_MS = 500L
        const val PATIENCE_S = 10L
    }
}
