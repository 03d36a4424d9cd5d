package dev.smolship.demo.engine

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.chat.Message
import dev.smolship.core.chat.Rendering
import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import dev.smolship.core.template.Template
import dev.smolship.core.template.TemplateError
import java.io.File

/** The bundle's chat template, as the export made it for apps. */
class ChatTemplate(root: File, private val manifest: Manifest) : Rendering {
    private val template = read(File(root, NAME))

    override fun render(messages: List<Message>): String {
        val turns = messages.map { Json.Object("role" to Json.Text(it.role), "content" to Json.Text(it.content)) }
        val variables =
            manifest.generation.specialTokens.mapValues { Json.Text(it.value) } +
                mapOf(
                    "messages" to Json.Array(turns),
                    "tools" to Json.Null,
                    "documents" to Json.Null,
                    "add_generation_prompt" to Json.Bool(true),
                )
        return refusing("the chat template cannot be rendered") { template.render(variables) }
    }

    private fun read(file: File): Template {
        if (NAME !in manifest.files || !file.isFile) {
            val todo = "export it with a smolship that writes $NAME; its notes say where a template cannot be used"
            throw Refusal("the bundle has no chat template for apps", "no $NAME", todo = todo)
        }
        return refusing("the chat template cannot be used") { Template(Json.read(file.readBytes())) }
    }

    private fun <T> refusing(what: String, action: () -> T): T = try {
        action()
    } catch (error: TemplateError) {
        throw Refusal(what, error.message)
    } catch (error: JsonError) {
        throw Refusal(what, error.message, "$NAME as the export writes it", "export the bundle again")
    }

    private companion object {
        const val NAME = "template.json"
    }
}
