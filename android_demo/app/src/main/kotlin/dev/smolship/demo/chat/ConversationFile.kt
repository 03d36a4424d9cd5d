package dev.smolship.demo.chat

import dev.smolship.core.Refusal
import dev.smolship.core.chat.Message
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.json.write
import java.io.File
import java.io.IOException

/**
 * A conversation as it is kept.
 *
 * @property open whether the last message is an answer that was still coming
 */
data class Kept(val choice: Choice? = null, val messages: List<Message> = emptyList(), val open: Boolean = false)

/** Keeps the conversation on the disk, so that it outlives the process. */
class ConversationFile(private val file: File) {
    /** What was kept; nothing where there is no file. One that cannot be read is put aside, and refused. */
    fun load(): Kept = try {
        when {
            !file.exists() -> Kept()
            file.length() > LARGEST -> throw JsonError("${file.length()} bytes, at most $LARGEST are read")
            else -> read(Json.read(file.readBytes()).objectOf("conversation"))
        }
    } catch (error: JsonError) {
        throw unreadable(error)
    } catch (error: IOException) {
        throw unreadable(error)
    }

    private fun unreadable(error: Exception): Refusal {
        val aside = File(file.path + ".unreadable")
        file.renameTo(aside)
        val todo = "begin a new one; the file is kept as ${aside.name}"
        return Refusal("the last conversation cannot be read", error.message, "what this app writes", todo)
    }

    /** Writes a temporary file and renames it: the old one holds until the new one is complete. */
    fun save(kept: Kept) {
        val temporary = File(file.path + ".partial")
        temporary.writeText(written(kept).write())
        if (!temporary.renameTo(file)) throw IOException("${file.name} cannot be replaced")
    }

    private fun read(raw: Json.Object): Kept {
        val schema = raw.need("schema").whole("schema")
        if (schema != SCHEMA) throw JsonError("schema: got $schema, expected $SCHEMA")
        val messages = raw.need("messages").items("messages").map { it.objectOf("message") }
        return Kept(
            raw["choice"]?.takeIf { it != Json.Null }?.objectOf("choice")?.let(::choice),
            messages.map { Message(it.need("role").text("role"), it.need("content").text("content")) },
            raw.need("open").bool("open"),
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
        "open" to Json.Bool(kept.open),
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
