package dev.smolship.demo.chat

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test

class AnnouncerTest {
    private val announcer = Announcer()

    @Test fun eachSentenceIsSaidOnceWhenItIsComplete() {
        assertNull(announcer.next("The capital"))
        assertNull(announcer.next("The capital is Paris."))
        assertEquals("The capital is Paris.", announcer.next("The capital is Paris. It"))
        assertNull(announcer.next("The capital is Paris. It is 3.5 times"))
        assertEquals("It is 3.5 times larger!", announcer.next("The capital is Paris. It is 3.5 times larger! And"))
        assertEquals("And old", announcer.rest("The capital is Paris. It is 3.5 times larger! And old"))
    }

    @Test fun theNextAnswerBeginsAnew() {
        assertEquals("A long first answer", announcer.rest("A long first answer"))
        assertEquals("Yes.", announcer.next("Yes. No"))
        assertEquals("No", announcer.rest("Yes. No"))
    }

    @Test fun anAnswerThatWasBrokenOffLeavesNothing() {
        announcer.next("One. Two. Three")
        assertEquals("Short.", announcer.next("Short. x"))
    }

    @Test fun linesAndOtherScriptsEndSentences() {
        assertEquals("- one", announcer.next("- one\n- two"))
        assertEquals("東京です。", Announcer().next("東京です。 次"))
    }
}
