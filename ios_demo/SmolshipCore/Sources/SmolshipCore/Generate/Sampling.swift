/// How the next token is chosen. Each step sees what the one before it left over.
public struct Sampling: Equatable, Sendable {
    /// 0 is greedy, of equal logits the lowest id; else logits are divided by it.
    public let temperature: Double
    /// Keep the most likely tokens that together reach that probability.
    public let topP: Double
    /// Keep so many of the most likely tokens; 0 keeps all.
    public let topK: Int
    /// Drop tokens below this share of the most likely one's probability.
    public let minP: Double
    /// Logits of tokens that are in the text already are divided by it if positive, else multiplied.
    public let repetitionPenalty: Double
    /// Of the random numbers; nil: another one each time.
    public let seed: UInt64?

    /// Greedy.
    public static let greedy = Sampling()

    /// Refuses what is out of range.
    public init(
        temperature: Double, topP: Double = 1, topK: Int = 0, minP: Double = 0, repetitionPenalty: Double = 1,
        seed: UInt64? = nil
    ) throws {
        for (name, good, got, expected) in [
            ("temperature", temperature >= 0 && temperature.isFinite, "\(temperature)", "a finite number, 0 or more"),
            ("top_p", topP > 0 && topP <= 1, "\(topP)", "above 0, at most 1"),
            ("top_k", topK >= 0, "\(topK)", "0 (all of them) or more"),
            ("min_p", minP >= 0 && minP <= 1, "\(minP)", "0 to 1"),
            (
                "repetition_penalty", repetitionPenalty > 0 && repetitionPenalty.isFinite, "\(repetitionPenalty)",
                "a finite number above 0; 1 is none"
            ),
        ] where !good {
            throw Refusal("\(name) is out of range", got: got, expected: expected)
        }
        self.temperature = temperature
        self.topP = topP
        self.topK = topK
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.seed = seed
    }

    private init() {
        (temperature, topP, topK, minP, repetitionPenalty, seed) = (0, 1, 0, 0, 1, nil)
    }
}
