package dev.smolship.demo.bench

import dev.smolship.core.Refusal
import dev.smolship.core.json.Json
import dev.smolship.core.json.write
import java.io.File
import java.io.IOException

/**
 * What a host and the app tell one another about one run, in files beside [result]; each is written in full and then
 * renamed, so that whoever reads one has all of it.
 *
 *     RESULT           the harness's result, once and last: the run is over and did well
 *     RESULT.error     {"schema": 1, "id", "what", "got", "expected", "todo"}: the run is over and failed
 *     RESULT.progress  {"schema": 1, "id", "pid", "stage", "done", "total", "seconds"}, once a second from the start on
 *
 * All three are removed when a run begins. `id` is what the host gave, so that it knows its own run. A host waits for
 * RESULT or RESULT.error. A thread of its own writes RESULT.progress, whatever the engine does: where that has not
 * changed for half a minute, the system has ended or frozen the app.
 */
class BenchFiles(
    private val result: File,
    private val id: String,
    private val pid: Int,
    private val clock: () -> Long = System::nanoTime,
) {
    private val start = clock()
    private val error = File(result.path + ".error")
    private val progress = File(result.path + ".progress")
    private var told = start - SECOND
    private var last = Stage("begin", 0, 0)

    /** Removes what an earlier run left, and says that this one has begun. */
    fun begin() {
        for (file in listOf(result, error, progress)) {
            if (file.exists() && !file.delete()) throw IOException("$file cannot be removed")
        }
        at("begin", 0, 0)
    }

    /** Notes how far the run is, which the next [beat] says. */
    @Synchronized
    fun at(stage: String, done: Long, total: Long) {
        last = Stage(stage, done, total)
        beat()
    }

    /** Says that the run goes on, at most once a second. */
    @Synchronized
    fun beat() {
        val now = clock()
        if (now - told < SECOND) return
        told = now
        write(
            progress,
            record(
                "pid" to Json.Whole(pid),
                "stage" to Json.Text(last.name),
                "done" to Json.Whole(last.done),
                "total" to Json.Whole(last.total),
                "seconds" to Json.Real((now - start) / SECOND.toDouble()),
            ).write().toByteArray(),
        )
    }

    fun done(bytes: ByteArray) = write(result, bytes)

    fun failed(why: Throwable) {
        val refusal = why as? Refusal ?: Refusal(why.javaClass.simpleName, why.message)
        write(
            error,
            record(
                "what" to Json.Text(refusal.what),
                "got" to text(refusal.got),
                "expected" to text(refusal.expected),
                "todo" to text(refusal.todo),
            ).write().toByteArray(),
        )
    }

    private class Stage(val name: String, val done: Long, val total: Long)

    private fun record(vararg fields: Pair<String, Json>) =
        Json.Object("schema" to Json.Whole(SCHEMA), "id" to Json.Text(id), *fields)

    private fun text(line: String?) = line?.let(Json::Text) ?: Json.Null

    private fun write(file: File, bytes: ByteArray) {
        val temporary = File(file.parentFile, ".${file.name}.partial")
        temporary.writeBytes(bytes)
        if (!temporary.renameTo(file)) throw IOException("$file cannot be written")
    }

    companion object {
        private const val SCHEMA = 1L
        private const val SECOND = 1_000_000_000L

        /** The file that [path] names, in full or below [folder], where it must lie: the app touches nothing elsewhere. */
        fun below(folder: File, path: String?, what: String): File {
            if (path.isNullOrEmpty()) throw Refusal("the intent names no $what", "none", "--es $what PATH")
            val file = (if (File(path).isAbsolute) File(path) else File(folder, path)).canonicalFile
            if (!file.toPath().startsWith(folder.canonicalFile.toPath())) {
                throw Refusal("the $what lies outside the app's folder", path, "a path below $folder", "push it there")
            }
            return file
        }
    }
}
