import Foundation
import SmolshipCore
import Synchronization

/// A conversation with a model that is loaded. All that computes happens on one queue of its own, one thing after
/// another, which is what makes it safe to pass around.
final class LiveChat: @unchecked Sendable {
    enum Event: Sendable {
        case piece(String)
        case ended(Ending, reused: Int)
    }

    private let queue = DispatchQueue(label: "dev.smolship.engine", qos: .userInitiated)
    private let stopping = Atomic(false)
    private let conversation: any Conversation
    private let release: () -> Void

    init(_ conversation: any Conversation, close: @escaping () -> Void) {
        (self.conversation, release) = (conversation, close)
    }

    /// The answer piece by piece, then how it ended. It ends early after `stop`, and where nobody listens any more.
    func ask(_ text: String, maxTokens: Int?) -> AsyncThrowingStream<Event, any Error> {
        stopping.store(false, ordering: .relaxed)
        return AsyncThrowingStream { events in
            events.onTermination = { [weak self] _ in self?.stop() }
            queue.async { [self] in
                do {
                    let ending = try conversation.ask(text, maxTokens: maxTokens) { piece in
                        if !piece.isEmpty { events.yield(.piece(piece)) }
                        return !stopping.load(ordering: .relaxed)
                    }
                    events.yield(.ended(ending, reused: conversation.reused))
                    events.finish()
                } catch {
                    events.finish(throwing: error)
                }
            }
        }
    }

    /// End the answer after the token that is being made, or between two chunks of the prompt.
    func stop() {
        stopping.store(true, ordering: .relaxed)
    }

    /// Begin a new conversation.
    func reset() {
        queue.async { [self] in conversation.reset() }
    }

    /// Give the model's memory back, behind whatever is under way.
    func close() {
        stop()
        queue.async { [self] in release() }
    }
}
