/// Raw times, a value or a row a repeat.
public struct Times: Sendable {
    /// By the prompt's length: from its first token to the choice of the first of the answer.
    public var ttftMs: [Int: [Double]]
    /// By depth of the cache: between one token and the next.
    public var gapsMs: [Int: [[Double]]]
    /// Of the repetitions before all that.
    public var warmupsMs: [Double] = []
    /// Of decoding on and on: the seconds since its start, and tokens/s since the one before.
    public var sustained: [(seconds: Double, tokensPerSecond: Double)] = []

    public init(ttftMs: [Int: [Double]] = [:], gapsMs: [Int: [[Double]]] = [:]) {
        (self.ttftMs, self.gapsMs) = (ttftMs, gapsMs)
    }

    /// Of each repeat: over the mean time between tokens.
    public func decodeTokensPerSecond(_ depth: Int) -> [Double] {
        (gapsMs[depth] ?? []).map { 1000 / mean($0) }
    }

    /// Of each repeat: over the time to the first token.
    public func prefillTokensPerSecond(_ length: Int) -> [Double] {
        (ttftMs[length] ?? []).map { 1000 * Double(length) / $0 }
    }

    var json: Json {
        .object([
            "ttft_ms": .object(JsonObject(ttftMs.map { ("\($0)", numbers($1)) })),
            "gaps_ms": .object(JsonObject(gapsMs.map { ("\($0)", .array($1.map(numbers))) })),
            "warmups_ms": numbers(warmupsMs),
            "sustained": .array(sustained.map { numbers([$0.seconds, $0.tokensPerSecond]) }),
        ])
    }
}

private func numbers(_ values: [Double]) -> Json { .array(values.map(Json.float)) }

/// Times one open engine as a plan asks.
struct Stopwatch {
    let engine: any TokenEngine
    let tokens: [Int]
    let timing: Timing
    let clock: TimeSource

    /// Each phase once uncounted and then `repeats` times. Throws CancellationError where `progress`, which is asked
    /// between two measurements, returns false.
    func times(_ progress: OnProgress) throws -> Times {
        var found = Times()
        let shallow = timing.depths.min()!
        while found.warmupsMs.count < timing.warmups, !agree(found.warmupsMs) {
            try goOn(progress("warming up", found.warmupsMs.count, timing.warmups))
            let start = clock()
            _ = try prefill(timing.prompts.min()!)
            try fill(shallow)
            _ = try decode(shallow)
            found.warmupsMs.append(1000 * (clock() - start))
        }
        for length in timing.prompts {
            found.ttftMs[length] = try repeated("a prompt of \(length) tokens", progress) { try prefill(length) }
        }
        for depth in timing.depths {
            try fill(depth)
            found.gapsMs[depth] = try repeated("decoding behind \(depth) tokens", progress) { try decode(depth) }
        }
        if timing.sustained > 0 { try fill(shallow) }
        let start = clock()
        var now = start
        while now - start < Double(timing.sustained) {
            try goOn(progress("sustained decoding", Int(now - start), timing.sustained))
            let before = now
            let count = try decode(shallow).count
            now = clock()
            found.sustained.append((now - start, Double(count) / (now - before)))
        }
        return found
    }

    private func repeated<Value>(
        _ what: String, _ progress: OnProgress, _ measure: () throws -> Value
    ) throws -> [Value] {
        let all = try (0...timing.repeats).map { i in
            try goOn(progress(what, i, timing.repeats + 1))
            return try measure()
        }
        return Array(all.dropFirst())
    }

    /// Milliseconds until the first token.
    private func prefill(_ length: Int) throws -> Double {
        try engine.goBack(to: 0)
        return 1000 * (try generated(Array(tokens.prefix(length)), 1).times[0])
    }

    /// Milliseconds between tokens; the cache holds `depth` tokens when the first of these begins.
    private func decode(_ depth: Int) throws -> [Double] {
        try engine.goBack(to: depth - 1)
        let times = try generated([tokens[depth - 1]], timing.tokens + 1).times
        guard times.count > 1 else {
            throw Refusal(
                "the context holds too few tokens to time decoding", got: depth, expected: "below \(engine.capacity)")
        }
        return zip(times, times.dropFirst()).map { 1000 * ($1 - $0) }
    }

    private func generated(_ prompt: [Int], _ maxTokens: Int) throws -> Generated {
        let generation = try Generation(engine, prompt: prompt, maxTokens: maxTokens, clock: clock)
        while try generation.next() != nil {}
        return generation.generated
    }

    private func fill(_ depth: Int) throws {
        try engine.goBack(to: 0)
        _ = try engine.feed(Array(tokens.prefix(depth)))
    }
}
