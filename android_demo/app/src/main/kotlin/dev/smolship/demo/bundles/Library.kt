package dev.smolship.demo.bundles

import dev.smolship.core.Cancelled
import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Http
import dev.smolship.core.bundle.Progress
import dev.smolship.core.bundle.Source
import dev.smolship.core.bundle.Store
import dev.smolship.core.bundle.Stored
import dev.smolship.core.bundle.checkFiles
import dev.smolship.core.chat.TemplateRendering
import dev.smolship.demo.engine.BundleOpener.Companion.THINKING
import java.io.File
import java.io.IOException
import java.util.concurrent.Executor

/** A work that takes long: on which bundle and file it is, and how far, in bytes. */
data class Job(val bundle: String, val file: String = "", val done: Long = 0, val total: Long = 0)

/** A download that was broken off, and where it came from; null where that is not known. */
data class Unfinished(val name: String, val url: String?)

/**
 * @property thinkers bundles whose template asks whether the model is to think first
 * @property job what is being done; one thing at a time
 * @property good a bundle whose files have just been looked at and are as the manifest says
 * @property problem why the last thing that was asked for did not happen
 * @property cancelled whether it was broken off
 */
data class LibraryState(
    val bundles: List<Stored> = emptyList(),
    val unfinished: List<Unfinished> = emptyList(),
    val thinkers: Set<String> = emptySet(),
    val job: Job? = null,
    val good: String? = null,
    val problem: String? = null,
    val cancelled: Boolean = false,
)

/**
 * The app's bundles below [folder], whichever screens come and go. It works on [worker] and tells states on [screen],
 * on which all functions here are called.
 */
class Library(
    val folder: File,
    private val worker: Executor,
    private val screen: Executor,
    private val clock: () -> Long = System::nanoTime,
) {
    val store = Store(folder)

    /** Told each state; set while a screen is there. */
    var listener: ((LibraryState) -> Unit)? = null
        set(value) {
            field = value
            value?.invoke(state)
        }

    var state = LibraryState()
        private set

    @Volatile private var cancelled = false

    /** Looks at what is there; `adb push` may have brought more. */
    fun refresh() {
        folder.mkdirs()
        if (state.job == null) worker.execute { trying(::list)?.let { problem -> tell { it.copy(problem = problem) } } }
    }

    /** Copies a bundle from [source], whose [name] may have to be asked for, too. */
    fun import(source: Source, name: () -> String?) =
        work("…") { store.import(name() ?: throw Refusal("the folder has no name"), source, it) }

    /** Goes on with a download that was broken off, where [url] ends in the same name. */
    fun download(url: String, http: Http) {
        val name = url.trim().trimEnd('/').substringAfterLast('/')
        work(name) {
            address(name).writeText(url.trim())
            store.download(name, http, url.trim(), it)
        }
    }

    fun remove(name: String) = work(name) { store.remove(name) }

    /** Reads every file and compares it with the manifest. */
    fun check(bundle: Stored) {
        val manifest = bundle.manifest ?: return
        work(bundle.name) { progress ->
            val problems = checkFiles(bundle.folder, manifest, progress = progress)
            if (problems.isNotEmpty()) {
                val some = problems.take(SOME).joinToString("; ")
                throw Refusal("${bundle.name} is not as it was exported", some, "its manifest's files", "copy it again")
            }
            tell { it.copy(good = bundle.name) }
        }
    }

    fun cancel() {
        cancelled = true
    }

    private fun work(name: String, action: (Progress) -> Unit) {
        if (state.job != null) return
        cancelled = false
        show(state.copy(job = Job(name), good = null, problem = null, cancelled = false))
        worker.execute {
            val problem = trying { action(Shown(name)) }
            val other = trying(::list)
            tell { it.copy(job = null, problem = problem ?: other) }
        }
    }

    /** What went wrong in [action], in words. An error here would end the app, at its next start too. */
    private fun trying(action: () -> Unit): String? = try {
        action()
        null
    } catch (ended: Cancelled) {
        tell { it.copy(cancelled = true) }
        null
    } catch (refusal: Refusal) {
        refusal.message
    } catch (error: Exception) {
        "$error"
    } catch (error: OutOfMemoryError) {
        "There is too little memory for this.\n$error"
    }

    private fun list() {
        store.clean()
        val bundles = store.list()
        val unfinished = store.unfinished().map { name ->
            Unfinished(name, address(name).takeIf { it.isFile && it.length() < LONGEST }?.readText())
        }
        val thinkers = bundles.filter(::asks).map { it.name }.toSet()
        val kept = unfinished.map { address(it.name).name }
        folder.list().orEmpty().filter { it.endsWith(ADDRESS) && it !in kept }.forEach { File(folder, it).delete() }
        tell { it.copy(bundles = bundles, unfinished = unfinished, thinkers = thinkers) }
    }

    /** Whether the bundle's template looks at [THINKING]. */
    private fun asks(bundle: Stored): Boolean {
        val file = File(bundle.folder, TemplateRendering.NAME)
        return try {
            file.isFile && file.length() < LARGEST && "\"$THINKING\"" in file.readText()
        } catch (_: IOException) {
            false // opening the bundle says what is wrong
        }
    }

    /** Where the address of an unfinished download is kept. */
    private fun address(name: String) = File(folder, ".$name$ADDRESS")

    private fun show(next: LibraryState) {
        state = next
        listener?.invoke(next)
    }

    private fun tell(change: (LibraryState) -> LibraryState) = screen.execute { show(change(state)) }

    /** Shows how far a work is, a few times a second. */
    private inner class Shown(private val bundle: String) : Progress {
        private var shown = clock() - SHOW_NS

        override fun at(file: String, done: Long, total: Long): Boolean {
            val now = clock()
            if (now - shown >= SHOW_NS) {
                shown = now
                tell { it.copy(job = Job(bundle, file, done, total)) }
            }
            return !cancelled
        }

        override fun said(line: String) = tell { it.copy(problem = line) }
    }

    private companion object {
        const val SHOW_NS = 150_000_000L
        const val SOME = 5
        const val ADDRESS = ".address"
        const val LONGEST = 8192L // bytes
        const val LARGEST = 4L shl 20
    }
}
