package dev.smolship.core.harness

import dev.smolship.core.generate.EngineTokenizer
import dev.smolship.core.json.Json

/** The tokenizer that comes with an engine: [name] says whose it is. It is opened when a plan has strings. */
class TokenizerSource(val name: String, val open: () -> EngineTokenizer)

/**
 * What a tokenizer makes of a string.
 *
 * @property bare its ids with nothing around them; null where there are none
 * @property around the same with what the model wants around a text
 * @property text the first of them that there is, as text again
 */
internal class Tokens(private val bare: IntArray?, private val around: IntArray?, private val text: String?) {
    fun toJson(): Json = Json.Object("bare" to idsOrNull(bare), "around" to idsOrNull(around), "text" to textOrNull())

    private fun idsOrNull(found: IntArray?): Json = found?.let { ids(it.asList()) } ?: Json.Null

    private fun textOrNull(): Json = text?.let { Json.Text(it) } ?: Json.Null

    companion object {
        fun of(text: String, tokenizer: EngineTokenizer): Tokens {
            val bare = tokenizer.encode(text, special = false)
            val around = tokenizer.encode(text, special = true)
            return Tokens(bare, around, (bare ?: around)?.let(tokenizer::decode))
        }
    }
}
