package dev.smolship.core.harness

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.filesBelow
import dev.smolship.core.bundle.inside
import dev.smolship.core.bundle.sha256
import dev.smolship.core.json.Json
import java.io.File
import java.io.IOException

/**
 * Bytes resident now; null where the system does not say.
 *
 * @property anonymous only this process has them: a phone ends it for these
 * @property fileBacked pages of mapped files, which the system can drop and read again
 * @property peak of both together, since the process began
 */
data class Memory(val anonymous: Long?, val fileBacked: Long?, val peak: Long?) {
    internal fun toJson(): Json = Json.Object(
        "anonymous_bytes" to whole(anonymous),
        "file_backed_bytes" to whole(fileBacked),
        "peak_bytes" to whole(peak),
    )

    private fun whole(value: Long?) = if (value == null || value == 0L) Json.Null else Json.Whole(value)

    companion object {
        /** Memory of this process, by Linux's files about it. */
        fun read(proc: File = File("/proc/self")): Memory {
            val rollup = kilobytes(File(proc, "smaps_rollup"))
            val status = kilobytes(File(proc, "status"))
            val anonymous = rollup["Anonymous"]
            val resident = rollup["Rss"]
            if (anonymous != null && resident != null) { // exact; the counters in status lag behind
                return Memory(anonymous, resident - anonymous, status["VmHWM"])
            }
            val file = status["RssFile"]
            return Memory(status["RssAnon"], file?.plus(status["RssShmem"] ?: 0), status["VmHWM"])
        }

        /** The lines "Name:  123 kB" of a file, in bytes; nothing where it cannot be read. */
        private fun kilobytes(file: File): Map<String, Long> {
            val text = try {
                file.readText()
            } catch (_: IOException) {
                return emptyMap()
            }
            val line = Regex("^(\\w+):\\s+(\\d{1,15}) kB$", RegexOption.MULTILINE)
            return line.findAll(text).associate { it.groupValues[1] to (it.groupValues[2].toLong() shl 10) }
        }
    }
}

/**
 * The machine that executes a plan, as its result names it.
 *
 * @property versions of the app and the engine, by name
 * @property system such as "Android 15"
 * @property cpu its name, where it has one
 * @property waiting how the engine's threads wait for one another: briefly, asleep or actively
 */
class Machine(
    val versions: Map<String, String>,
    val system: String,
    val cpu: String?,
    val waiting: String = "actively",
    val memory: () -> Memory = { Memory.read() },
)

/**
 * One SHA-256 over the artifact in [folder] that [info] names: over its file and those that its name begins, or all in
 * it, where it is a folder. The host holds it against the bundle.
 */
fun artifactDigest(folder: File, info: Json.Object): String {
    val name = (info["file"] as? Json.Text)?.value ?: throw Refusal("the plan does not name the artifact's file")
    val path = inside(folder, name)
    val files = when {
        path.isDirectory -> filesBelow(path).map { File(path, it) }
        path.isFile -> path.parentFile!!.listFiles().orEmpty().filter { it.isFile && it.name.startsWith(path.name) }
        else -> throw Refusal("no artifact", "nothing at $path", "a file", "copy the bundle again")
    }
    val hashes = files.associate { it.relativeTo(folder).invariantSeparatorsPath to Json.Text(sha256(it)) }
    return sha256(pythonJson(Json.Object(hashes), compact = false))
}
