package dev.smolship.core.chat

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Bundles
import dev.smolship.core.bundle.Manifest
import dev.smolship.core.bundle.sha256
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class TemplateRenderingTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private fun of(vararg files: Pair<String, String>): TemplateRendering {
        val root = Bundles.write(temporary.newFolder(), *files)
        return TemplateRendering.of(root, Manifest.read(root))
    }

    private fun program(output: String, hash: String = sha256(SOURCE)) =
        """{"schema": 1, "source_sha256": "$hash", "body": [{"node": "Output", "line": 1, "nodes": [$output]}]}"""

    private fun refused(what: String, vararg files: Pair<String, String>) {
        val refusal = assertThrows(Refusal::class.java) { of(*files).render(emptyList()) }
        assertTrue("$refusal", what in refusal.message)
    }

    @Test
    fun `a bundle's template renders`() {
        val files = arrayOf("chat_template.jinja" to SOURCE, "template.json" to program(TEXT))
        assertEquals("Hello", of(*files).render(listOf(Message("user", "Hi"))))
    }

    @Test
    fun `a bundle without one, or with another, is refused`() {
        refused("no template.json", "chat_template.jinja" to SOURCE)
        refused("another chat template", "chat_template.jinja" to "Bye", "template.json" to program(TEXT))
        refused("not valid JSON", "template.json" to program(TEXT).dropLast(2))
        refused("cannot be used", "template.json" to "{}")
        refused("cannot be used", "template.json" to program("""{"node": "Include", "line": 1}"""))
    }

    @Test
    fun `a template that Python would fail on is refused`() {
        val failing = """{"node": "Call", "line": 1, "value": {"node": "Name", "line": 1, "name": "nothing", "ctx": "load"},
            "args": [], "kwargs": [], "dyn_args": null, "dyn_kwargs": null}"""
        refused("cannot be rendered", "template.json" to program(failing))
    }

    @Test
    fun `a file that went missing since is refused`() {
        val root = Bundles.write(temporary.newFolder(), "template.json" to program(TEXT))
        val manifest = Manifest.read(root)
        File(root, "template.json").delete()
        assertThrows(Refusal::class.java) { TemplateRendering.of(root, manifest) }
    }

    @Test
    fun `a file that was altered since, or is too large, is refused`() {
        val root = Bundles.write(temporary.newFolder(), "template.json" to program(TEXT))
        val manifest = Manifest.read(root)
        File(root, "template.json").writeText(program(TEXT).replace("Hello", "Hallo"))
        val refusal = assertThrows(Refusal::class.java) { TemplateRendering.of(root, manifest) }
        assertEquals("the bundle was altered", refusal.what)
        refused("cannot be read", "template.json" to program(TEXT) + " ".repeat(2 shl 20))
    }

    private companion object {
        const val SOURCE = "Hello"
        const val TEXT = """{"node": "TemplateData", "line": 1, "data": "Hello"}"""
    }
}
