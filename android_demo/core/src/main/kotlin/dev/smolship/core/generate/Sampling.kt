package dev.smolship.core.generate

import dev.smolship.core.Refusal

/**
 * How the next token is chosen. Each step sees what the one before it left over.
 *
 * @property temperature 0 is greedy (of equal logits the lowest id); else logits are divided by it
 * @property topP keep the most likely that together reach that probability
 * @property topK keep the k most likely (0: all)
 * @property minP drop those below this share of the most likely one's probability
 * @property repetitionPenalty logits of tokens that are in the text already: divided by it if positive, else multiplied
 * @property seed null: another one each time
 */
data class Sampling(
    val temperature: Double = 0.0,
    val topP: Double = 1.0,
    val topK: Int = 0,
    val minP: Double = 0.0,
    val repetitionPenalty: Double = 1.0,
    val seed: Long? = null,
) {
    init {
        check("temperature", temperature, temperature >= 0 && temperature.isFinite(), "a finite number, 0 or more")
        check("top_p", topP, topP > 0 && topP <= 1, "above 0, at most 1")
        check("top_k", topK, topK >= 0, "0 (all of them) or more")
        check("min_p", minP, minP in 0.0..1.0, "0 to 1")
        val good = repetitionPenalty > 0 && repetitionPenalty.isFinite()
        check("repetition_penalty", repetitionPenalty, good, "a finite number above 0; 1 is none")
        check("seed", seed, seed == null || seed >= 0, "0 or more")
    }

    private fun check(name: String, value: Any?, good: Boolean, expected: String) {
        if (!good) throw Refusal("$name is out of range", value, expected)
    }
}
