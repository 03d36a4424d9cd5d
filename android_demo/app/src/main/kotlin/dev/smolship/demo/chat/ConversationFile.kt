package dev.smolship.demo.chat

import dev.smolship.core.chat.Message
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.json.write
import java.io.File
import java.io.IOException

/** A conversation as it is kept. */
data class Kept(val choice: Choice? = null, val messages: List<Message> = emptyList())

/** Keeps the conversation on the disk, so that it outlives the process. */
class ConversationFile(private val file: File) {
    /** What was kept; nothing where there is no file, or one that is not ours. */
    fun load(): Kept = try {
        if (file.length() in 1..LARGEST) read(Json.read(file.readBytes()).objectOf("conversation")) else Kept()
    } catch (_: JsonError) {
        Kept()
    } catch (_: IOException) {
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
        val messages = raw.need("messages").items("messages").map { it.objectOf("message") }
        return Kept(
            raw["choice"]?.takeIf { it != Json.Null }?.objectOf("choice")?.let(::choice),
            messages.map { Message(it.need("role").text("role"), it.need("content").text("content")) },
        )
    }

    private fun choice(raw: Json.Object) = Choice(
        raw.need("bundle").text("bundle"),
        raw.need("target").text("target"),
        raw.need("thinking").bool("thinking"),
    )

    private fun written(kept: Kept) = Json.Object(
        "schema" to Json.Whole(SCHEMA),
        "choice" to (kept.choice?.let(::written) ?: Json.Null),
        "messages" to Json.Array(kept.messages.map(::written)),
    )

    private fun written(choice: Choice) = Json.Object(
        "bundle" to Json.Text(choice.bundle),
        "target" to Json.Text(choice.target),
        "thinking" to Json.Bool(choice.thinking),
    )

    private fun written(message: Message) =
        Json.Object("role" to Json.Text(message.role), "content" to Json.Text(message.content))

    private companion object {
        const val SCHEMA = 1L
        const val LARGEST = 16L shl 20
    }
}
