package dev.smolship.demo.chat

import dev.smolship.core.Refusal
import dev.smolship.core.chat.Message
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException

class ConversationFileTest {
    @get:Rule val folder = TemporaryFolder()
    private val file get() = File(folder.root, "conversation.json")
    private val kept =
        Kept(Choice("b", "onnx", thinking = false), listOf(Message("user", "naïve\n\"🙂\""), Message("assistant", "")))

    @Test fun whatIsSavedIsLoaded() {
        for (one in listOf(kept, kept.copy(open = true))) {
            ConversationFile(file).save(one)
            assertEquals(one, ConversationFile(file).load())
        }
        ConversationFile(file).save(Kept())
        assertEquals(Kept(), ConversationFile(file).load())
        assertEquals(listOf("conversation.json"), folder.root.list()!!.toList())
    }

    @Test fun whatIsNotOursIsPutAsideAndSaid() {
        assertEquals(Kept(), ConversationFile(file).load())
        val strange = listOf("""{"schema": 2}""", """{"schema": 1}""", """{"schema": 1, "messages": [1]}""")
        for (bytes in (strange + listOf("", "{", "[]")).map { it.toByteArray() } + byteArrayOf(-1, -2)) {
            file.writeBytes(bytes)
            val refusal = assertThrows(Refusal::class.java) { ConversationFile(file).load() }
            assertEquals("the last conversation cannot be read", refusal.what)
            assertArrayEquals(bytes, File(file.path + ".unreadable").readBytes())
            assertEquals(Kept(), ConversationFile(file).load())
        }
    }

    @Test fun whereItCannotBeWrittenThatIsAnError() {
        file.mkdir()
        File(file, "x").createNewFile()
        assertThrows(IOException::class.java) { ConversationFile(file).save(kept) }
    }
}
