import Foundation

/// What was generated so far.
public struct Generated: Equatable, Sendable {
    /// Tokens that were fed first.
    public var promptTokens: Int
    /// The tokens, without the stop token.
    public var ids: [Int] = []
    /// Why it ended: a stop token, `maxTokens`, the context was full, or it was broken off.
    public var end = End.interrupted
    public var stopId: Int?
    /// Seconds from the start of the prefill until each token was known, the stop token's last.
    public var times: [Double] = []

    public init(promptTokens: Int) {
        self.promptTokens = promptTokens
    }

    /// Seconds until the first token was known, prefill included.
    public var ttftSeconds: Double? { times.first }

    /// Tokens a second after the first; nil with fewer than two.
    public var tokensPerSecond: Double? {
        guard let first = times.first, let last = times.last, last > first else { return nil }
        return Double(times.count - 1) / (last - first)
    }

    public var ending: Ending {
        Ending(
            end: end, promptTokens: promptTokens, tokens: ids.count, ttftSeconds: ttftSeconds,
            tokensPerSecond: tokensPerSecond)
    }
}

/// Seconds of a clock that never goes back.
public typealias TimeSource = () -> Double

public let uptime: @Sendable () -> Double = { Double(DispatchTime.now().uptimeNanoseconds) / 1e9 }

/// Feeds a prompt after what the engine holds and gives what follows, one forward a token. The last token is never
/// fed: the engine ends just before it.
public final class Generation {
    public private(set) var generated: Generated
    private let engine: any TokenEngine
    private let maxTokens: Int?
    private let stopIds: Set<Int>
    private let sampler: Sampler
    private let clock: TimeSource
    private var start: Double?
    private var feed: [Int]
    private var text: [Int]
    private var ended = false

    /// `maxTokens` nil: until a stop token or the end of the context. `before` are the tokens that the engine holds
    /// already; the repetition penalty counts them.
    public init(
        _ engine: any TokenEngine, prompt: [Int], maxTokens: Int? = nil, stopIds: Set<Int> = [],
        sampler: Sampler = Sampler(.greedy), before: [Int] = [], clock: @escaping TimeSource = uptime
    ) throws {
        if let maxTokens, maxTokens < 1 {
            throw Refusal("max_tokens is out of range", got: maxTokens, expected: "1 or more")
        }
        (self.engine, self.maxTokens, self.stopIds) = (engine, maxTokens, stopIds)
        (self.sampler, self.clock) = (sampler, clock)
        (feed, text) = (prompt, before + prompt)
        generated = Generated(promptTokens: prompt.count)
    }

    /// The next token; nil when the answer has ended. `between` is asked between the chunks of a long prompt whether
    /// to go on. The first call throws Refusal for a prompt that does not fit; any call may throw the engine's error,
    /// which ends the answer.
    public func next(between: () -> Bool = { true }) throws -> Int? {
        if ended { return nil }
        let start = self.start ?? clock()
        self.start = start
        if let maxTokens, generated.ids.count >= maxTokens { return finish(.maxTokens) }
        if !generated.ids.isEmpty, engine.position == engine.capacity { return finish(.context) }
        ended = true  // unless the engine gives a token
        guard let logits = try engine.feed(feed, between: between) else { return nil }
        let token = try sampler.pick(logits, after: text)
        generated.times.append(clock() - start)
        if stopIds.contains(token) {
            generated.stopId = token
            return finish(.stop)
        }
        generated.ids.append(token)
        text.append(token)
        feed = [token]
        ended = false
        return token
    }

    private func finish(_ end: End) -> Int? {
        generated.end = end
        ended = true
        return nil
    }
}
