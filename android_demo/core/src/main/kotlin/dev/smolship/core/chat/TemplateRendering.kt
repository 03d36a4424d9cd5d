package dev.smolship.core.chat

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.bundle.hex
import dev.smolship.core.bundle.inside
import dev.smolship.core.bundle.sha256
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.template.Template
import dev.smolship.core.template.TemplateError
import java.io.File
import java.io.IOException

/**
 * The text of a conversation by a chat template, as transformers' apply_chat_template gives it.
 *
 * @property specialTokens what the template sees as bos_token and so on
 * @property variables the template's own, such as enable_thinking
 * @property date (YYYY-MM-DD) what the template sees as today; null: today
 */
class TemplateRendering(
    private val template: Template,
    private val specialTokens: Map<String, String>,
    private val variables: Map<String, Json> = emptyMap(),
    private val date: String? = null,
) : Rendering {
    override fun render(messages: List<Message>): String {
        val given = specialTokens.mapValues { Json.Text(it.value) } + mapOf(
            "messages" to Json.Array(messages.map(::said)),
            "tools" to Json.Null,
            "documents" to Json.Null,
            "add_generation_prompt" to Json.Bool(true),
        )
        try {
            return template.render(given + variables, date)
        } catch (error: TemplateError) {
            throw Refusal("the chat template cannot be rendered", error.message)
        }
    }

    private fun said(message: Message) =
        Json.Object("role" to Json.Text(message.role), "content" to Json.Text(message.content))

    companion object {
        /** The file of a bundle that holds its template's syntax tree. */
        const val NAME = "template.json"
        private const val COPY = "copy or download the bundle again"
        private const val SOURCE = "chat_template.jinja"
        private const val LIMIT = 2L shl 20 // bytes, as the export has it

        /** The template of the bundle [root]; refused where it has none that an app can render. */
        fun of(root: File, manifest: Manifest, variables: Map<String, Json> = emptyMap()): TemplateRendering {
            val todo = "export the bundle again: it says why a template is not portable"
            val listed = manifest.files[NAME]
                ?: throw Refusal("the bundle has no chat template for apps", "no $NAME", todo = todo)
            val file = inside(root, NAME)
            if (!file.isFile || file.length() > LIMIT) {
                throw Refusal("$NAME cannot be read", "${file.length()} bytes", "a file of at most $LIMIT", todo)
            }
            val bytes = try {
                file.readBytes()
            } catch (error: IOException) {
                throw Refusal("$NAME cannot be read", error.message, "a readable file", todo)
            }
            if (sha256().apply { update(bytes) }.hex() != listed.sha256) {
                throw Refusal("the bundle was altered", "$NAME: its SHA-256 is not the manifest's", todo = COPY)
            }
            val template = try {
                Template(Json.read(bytes))
            } catch (error: JsonError) {
                throw Refusal("$NAME is not valid JSON", error.message, todo = todo)
            } catch (error: TemplateError) {
                throw Refusal("$NAME cannot be used", error.message, todo = todo)
            }
            val source = manifest.files[SOURCE]
            if (source != null && source.sha256 != template.sourceSha256) {
                throw Refusal("$NAME is of another chat template", template.sourceSha256, source.sha256, todo)
            }
            return TemplateRendering(template, manifest.generation.specialTokens, variables)
        }
    }
}
