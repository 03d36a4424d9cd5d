package dev.smolship.demo.chat

import dev.smolship.core.chat.Message
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.json.write
import java.io.File
import java.io.IOException

/** A conversation as it is kept, and what has been typed and not been sent. */
data class Kept(val choice: Choice? = null, val messages: List<Message> = emptyList())

/** Keeps the conversation on the disk, so that it outlives the process. */
class ConversationFile(private val file: File) {
    /** What was kept; nothing where there is no file, or one that is not ours. */
    fun load(): Kept = try {
        if (file.length() in 1..LARGEST) read(Json.read(file.readBytes()).objectOf("conversation")) else Kept()
    } catch (error: JsonError) {
        Kept()
    } catch (error: IOException) {
        Kept()
    }

    /** Writes a temporary file and renames it: the old one holds until the new one is complete. */
    fun save(kept: Kept) {
        val temporary = File(file.path + ".partial")
        temporary.writeText(written(kept).write())
        if (!temporary.renameTo(file)) throw IOException("${file.name} cannot be replaced")
    }

    private fun read(raw: Json.Object): Kept {
        if (raw.need("schema").whole("schema") != SCHEMA) return Kept()
        val choice = raw["choice"]?.takeIf { it != Json.Null }?.objectOf("choice")
        return Kept(
            choice?.let { Choice(it.need("bundle").text("bundle"), it.need("target").text("target")) },
            raw.need("messages").items("messages").map { it.objectOf("message") }.map {
                Message(it.need("role").text("role"), it.need("content").text("content"))
            },
        )
    }

    private fun written(kept: Kept) = Json.Object(
        "schema" to Json.Whole(SCHEMA),
        "choice" to
            (
                kept.choice?.let { Json.Object("bundle" to Json.Text(it.bundle), "target" to Json.Text(it.target)) }
                    ?: Json.Null
                ),
        "messages" to
            Json.Array(
                kept.messages.map { Json.Object("role" to Json.Text(it.role), "content" to Json.Text(it.content)) },
            ),
    )

    private companion object {
        const val SCHEMA = 1L
        const val LARGEST = 16L shl 20
    }
}
