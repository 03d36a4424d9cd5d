/// Several turns over an engine with a tokenizer of its own. A turn whose prompt begins with the text that the engine
/// holds feeds the rest of it; any other one begins anew.
public final class TextChat: Conversation {
    public private(set) var messages: [Message]
    public private(set) var reused = 0
    public var sampling: Sampling

    private let engine: any TextEngine
    private let render: Rendering
    private var held: [Unicode.Scalar]? = []  // nil: unknown, and the engine is reset before it is used

    /// `messages` are a system prompt, or a conversation that goes on.
    public init(
        engine: any TextEngine, sampling: Sampling = .greedy, messages: [Message] = [], render: @escaping Rendering
    ) {
        (self.engine, self.sampling, self.messages, self.render) = (engine, sampling, messages, render)
    }

    /// Throws the template's refusal, with nothing changed, or the engine's error, after which the engine begins anew.
    public func ask(_ text: String, maxTokens: Int? = nil, sink: (String) -> Bool) throws -> Ending {
        let question = Message(.user, text)
        let prompt = Array(try render(messages + [question]).unicodeScalars)
        guard !prompt.isEmpty else {
            throw Refusal("the chat template renders nothing", got: "\(messages.count + 1) messages")
        }
        let rest = try rest(of: prompt)
        held = nil
        var answer = ""
        var ended = false
        defer {
            if !answer.isEmpty || ended { messages += [question, Message(.assistant, answer)] }
        }
        let ending = try engine.generate(rest, maxTokens: maxTokens, sampling: sampling) { piece in
            answer += piece
            return sink(piece)
        }
        ended = ending.end == .stop
        // The last token of an answer that has no stop token was said and not fed: what is held is not what was said.
        if ended { held = prompt + answer.unicodeScalars }
        return ending
    }

    public func reset() {
        messages = messages.first.map { $0.role == .system ? [$0] : [] } ?? []
    }

    /// What to feed of a prompt; the engine is reset where it holds something else.
    private func rest(of prompt: [Unicode.Scalar]) throws -> String {
        if let held, held.count < prompt.count, prompt.starts(with: held) {
            reused = held.count
        } else {
            try engine.reset()
            reused = 0
        }
        var rest = String.UnicodeScalarView()
        rest.append(contentsOf: prompt[reused...])
        return String(rest)
    }
}
