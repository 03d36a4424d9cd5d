/// What runs a model, token by token. Used from one thread at a time.
public protocol TokenEngine: AnyObject {
    /// Tokens of the vocabulary.
    var vocab: Int { get }
    /// Tokens that the cache holds.
    var capacity: Int { get }
    /// Tokens that it holds now.
    var position: Int { get }
    /// The earliest position that `rewind` reaches, besides 0, where the engine begins anew.
    var earliest: Int { get }
    /// The most tokens that one call of the engine takes; nil where it takes any number.
    var chunk: Int? { get }
    /// What runs it, such as "Core ML".
    var runtime: String { get }

    /// Append `ids` to the cache; the logits of the last one, `vocab` of them.
    func forward(_ ids: [Int]) throws -> [Float]
    /// Forget all tokens from a position on.
    func rewind(to position: Int) throws
    /// Give the memory back. A closed engine cannot be used.
    func close()
}

extension TokenEngine {
    public var earliest: Int { 0 }
    public var chunk: Int? { nil }
    public var runtime: String { "" }
}

/// What runs a model with a tokenizer of its own. It keeps the text that it was given and has said, until `reset`.
public protocol TextEngine: AnyObject {
    /// Tokens that the cache holds.
    var capacity: Int { get }

    /// Feed `text` after what is held and stream what follows into `sink`, which ends it by returning false.
    func generate(
        _ text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Bool
    ) throws -> Ending
    /// Forget all text.
    func reset() throws
    /// Give the memory back. A closed engine cannot be used.
    func close()
}

/// Text to tokens, and each token's bytes.
public protocol Tokenizer {
    /// Token ids of a text; nothing is put around it, and special tokens that it spells are these tokens.
    func encode(_ text: String) throws -> [Int]
    /// The bytes that a token stands for; none for a special token.
    func bytes(_ id: Int) throws -> [UInt8]
}

/// The tokenizer that an engine or its app brings along, as plans ask it.
public protocol EngineTokenizer {
    /// Whose it is.
    var name: String { get }
    /// Token ids of a text, with what the model wants around one where it is `special`; nil where it has none.
    func encode(_ text: String, special: Bool) throws -> [Int]?
    /// The text of ids.
    func decode(_ ids: [Int]) throws -> String
}

/// Why an answer ended.
public enum End: String, Equatable, Sendable {
    case stop
    case maxTokens = "max_tokens"
    case context
    case interrupted
}

/// How an answer ended, with its counts and times, as far as the engine says them.
public struct Ending: Equatable, Sendable {
    public var end: End
    /// Tokens that were fed before the answer.
    public var promptTokens: Int?
    /// Tokens of the answer, its stop token not counted.
    public var tokens: Int?
    /// Seconds until the first token was known.
    public var ttftSeconds: Double?
    /// Tokens a second after the first one.
    public var tokensPerSecond: Double?

    public init(
        end: End, promptTokens: Int? = nil, tokens: Int? = nil, ttftSeconds: Double? = nil,
        tokensPerSecond: Double? = nil
    ) {
        self.end = end
        self.promptTokens = promptTokens
        self.tokens = tokens
        self.ttftSeconds = ttftSeconds
        self.tokensPerSecond = tokensPerSecond
    }
}
