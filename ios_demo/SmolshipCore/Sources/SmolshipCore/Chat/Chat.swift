/// Several turns over one engine, which feeds only what its cache does not hold yet.
///
/// Each turn renders the whole conversation, as the template wants it then (some drop the thinking of earlier turns),
/// and compares its tokens with those in the cache. The cache is rewound to where they part, and fed the rest. So it
/// always holds what a new engine would be fed. Nothing else may use the engine meanwhile.
public final class Chat: Conversation {
    public private(set) var messages: [Message]
    public private(set) var reused = 0
    /// The tokens of the last answer and their times; nil before the first one.
    public private(set) var generated: Generated?
    public var sampling: Sampling

    private let engine: any TokenEngine
    private let tokenizer: any Tokenizer
    private let stopIds: Set<Int>
    private let clock: TimeSource
    private let render: Rendering
    private var cached: [Int] = []  // what the engine was fed; it holds them up to its position

    /// `messages` are a system prompt, or a conversation that goes on.
    public init(
        engine: any TokenEngine, tokenizer: any Tokenizer, stopIds: Set<Int>, sampling: Sampling = .greedy,
        messages: [Message] = [], clock: @escaping TimeSource = uptime, render: @escaping Rendering
    ) {
        (self.engine, self.tokenizer, self.stopIds, self.sampling) = (engine, tokenizer, stopIds, sampling)
        (self.messages, self.clock, self.render) = (messages, clock, render)
    }

    /// While a long prompt is fed in chunks, `sink` gets an empty text between them, and may end that, too. Throws
    /// Refusal where the conversation does not fit into the context, or the template refuses it; nothing has changed
    /// then.
    public func ask(_ text: String, maxTokens: Int? = nil, sink: (String) -> Bool) throws -> Ending {
        let question = Message(.user, text)
        let ids = try prompt(messages + [question])
        let feed = try rewound(to: ids)
        let generation = try Generation(
            engine, prompt: feed, maxTokens: maxTokens, stopIds: stopIds, sampler: Sampler(sampling),
            before: Array(ids.prefix(reused)), clock: clock)
        var stream = TextStream()
        var answer = ""
        defer {
            generated = generation.generated
            if !generation.generated.ids.isEmpty || generation.generated.end == .stop {
                messages += [question, Message(.assistant, answer + stream.finish())]
            }
        }
        while let token = try generation.next(between: { sink("") }) {
            cached.append(token)
            let piece = stream.push(try tokenizer.bytes(token))
            answer += piece
            guard sink(piece) else { return generation.generated.ending }
        }
        let rest = stream.finish()
        answer += rest
        if !rest.isEmpty { _ = sink(rest) }
        return generation.generated.ending
    }

    /// The cache is still reused where it can be.
    public func reset() {
        messages = messages.first.map { $0.role == .system ? [$0] : [] } ?? []
    }

    private func prompt(_ messages: [Message]) throws -> [Int] {
        let ids = try tokenizer.encode(try render(messages))
        guard ids.count <= engine.capacity else {
            throw Refusal(
                "the conversation is longer than the context", got: "\(ids.count) tokens",
                expected: "at most \(engine.capacity)",
                todo: "ask less at once, begin a new conversation, or export with a larger --context")
        }
        guard !ids.isEmpty else {
            throw Refusal("the chat template renders nothing", got: "\(messages.count) messages")
        }
        return ids
    }

    /// Rewind the cache to what it shares with `ids`; what to feed, at least the last token.
    private func rewound(to ids: [Int]) throws -> [Int] {
        let shared = zip(cached.prefix(engine.position), ids).prefix { $0 == $1 }.count
        reused = min(shared, ids.count - 1)
        if reused < engine.earliest { reused = 0 }  // the state has forgotten so much
        try engine.goBack(to: reused)
        cached = ids
        return Array(ids[reused...])
    }
}
