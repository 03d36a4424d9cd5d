package dev.smolship.demo

import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.os.Handler
import android.os.Looper
import android.system.Os
import dev.smolship.demo.bundles.Checked
import dev.smolship.demo.bundles.Library
import dev.smolship.demo.chat.ChatSession
import dev.smolship.demo.chat.ConversationFile
import dev.smolship.demo.engine.BundleOpener
import java.io.File
import java.util.concurrent.Executor
import java.util.concurrent.Executors

/** What outlives the screens: the conversation and the bundles. */
class DemoApplication : Application() {
    private val main = Handler(Looper.getMainLooper())
    private val screen = Executor { main.post(it) }

    /** Where `adb push` puts bundles, and where plans and results of benchmarks lie. */
    val shared: File by lazy { getExternalFilesDir(null) ?: filesDir }

    val library by lazy { Library(File(shared, "bundles"), Executors.newSingleThreadExecutor(), screen) }

    val chat by lazy {
        val opener = BundleOpener(library.store, Checked(File(filesDir, "checked"))) { freeMemory() }
        val file = ConversationFile(File(filesDir, "conversation.json"))
        ChatSession(opener, file, Executors.newSingleThreadExecutor(), screen)
    }

    override fun attachBaseContext(base: Context) {
        // ONNX Runtime and GenAI report to their makers unless this is set before they are loaded, which another
        // library's content provider might do before onCreate.
        Os.setenv("ORT_DISABLE_TELEMETRY", "1", true)
        super.attachBaseContext(base)
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND) chat.release()
    }

    override fun onLowMemory() {
        super.onLowMemory()
        chat.release()
    }
}

/** The application that this context belongs to. */
val Context.demo get() = applicationContext as DemoApplication
