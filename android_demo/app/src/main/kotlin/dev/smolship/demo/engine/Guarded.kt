package dev.smolship.demo.engine

import dev.smolship.core.Refusal

/** Does [action]; what a native engine throws, its library's absence included, becomes a refusal that can be read. */
internal inline fun <T> guarded(what: String, action: () -> T): T = try {
    action()
} catch (refusal: Refusal) {
    throw refusal
} catch (error: Exception) {
    throw Refusal("the engine cannot $what", error.message ?: error.javaClass.name, todo = AGAIN)
} catch (error: LinkageError) {
    throw Refusal("the engine is not in this app", error.message ?: error.javaClass.name, "arm64-v8a libraries")
} catch (error: OutOfMemoryError) {
    throw Refusal("there is too little memory to $what", error.message, todo = "close other apps")
}

@PublishedApi
internal const val AGAIN = "export the bundle again, or look at the device's log (adb logcat)"
