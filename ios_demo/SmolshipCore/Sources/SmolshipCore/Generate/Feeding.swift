extension TokenEngine {
    /// `forward` in calls of at most `chunk` tokens, with what goes in and comes out looked at. Throws Refusal where an
    /// id is not in the vocabulary or the cache would overflow; the engine is then as it was.
    ///
    /// `between` is asked between two calls whether to go on. Where it says no, nil comes back, and the cache holds
    /// what was fed until then.
    public func feed(_ ids: [Int], between: () -> Bool = { true }) throws -> [Float]? {
        guard !ids.isEmpty else { throw Refusal("token ids must be a list with something in it", got: "none") }
        guard ids.count <= capacity - position else {
            throw Refusal(
                "the prompt is longer than the context", got: "\(ids.count) tokens after \(position)",
                expected: "at most \(capacity - position)", todo: "shorten it, or export with a larger --context")
        }
        if let wrong = ids.first(where: { !(0..<vocab).contains($0) }) {
            throw Refusal("a token id is not in the vocabulary", got: wrong, expected: "0 to \(vocab - 1)")
        }
        let step = chunk ?? ids.count
        var logits: [Float] = []
        for start in stride(from: 0, to: ids.count, by: step) {
            if start > 0, !between() { return nil }
            let part = Array(ids[start..<min(start + step, ids.count)])
            let expected = position + part.count
            logits = try forward(part)
            guard logits.count == vocab else {
                throw Refusal("the engine's logits have another size", got: logits.count, expected: vocab)
            }
            guard position == expected else {
                throw Refusal("the engine has lost its place", got: position, expected: expected)
            }
        }
        return logits
    }

    /// `rewind`, where the engine can: to 0, or from `earliest` up to `position`.
    public func goBack(to place: Int) throws {
        guard place == 0 || (place >= earliest && place <= position) else {
            throw Refusal(
                "cannot rewind to there", got: place, expected: "0, or a position from \(earliest) to \(position)")
        }
        try rewind(to: place)
        guard position == place else {
            throw Refusal("the engine has lost its place", got: position, expected: place)
        }
    }
}

/// The place of the largest number, of equal ones the first; of a NaN, where there is one. `numbers` has at least one.
func largestIndex(_ numbers: [Float]) -> Int {
    numbers.withUnsafeBufferPointer { numbers in
        var best = 0
        for i in 0..<numbers.count {
            if numbers[i] > numbers[best] { best = i } else if numbers[i].isNaN { return i }
        }
        return best
    }
}
