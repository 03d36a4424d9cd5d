/// One turn of a conversation.
public struct Message: Equatable, Sendable, Codable {
    public enum Role: String, Sendable, Codable {
        case system, user, assistant
    }

    public var role: Role
    public var content: String

    public init(_ role: Role, _ content: String) {
        self.role = role
        self.content = content
    }
}

/// A conversation with a model, whatever the engine. Used from one thread at a time.
public protocol Conversation: AnyObject {
    /// What was said so far, the system prompt first.
    var messages: [Message] { get }
    /// Tokens, or of a text engine characters, of the last prompt that the cache held already.
    var reused: Int { get }

    /// Stream the answer to `text` into `sink`, which breaks it off by returning false. Question and answer join the
    /// conversation when the answer ends, however it ends; an answer without a token leaves no trace.
    func ask(_ text: String, maxTokens: Int?, sink: (String) -> Bool) throws -> Ending
    /// Begin a new conversation with the same system prompt.
    func reset()
}

/// The prompt of a conversation up to where the answer begins, as the model's chat template writes it.
public typealias Rendering = ([Message]) throws -> String
