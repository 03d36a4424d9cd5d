import Foundation
import SmolshipCore

/// The conversation as it lies on the disk, so that it goes on after the app was ended.
struct SavedChat: Codable, Equatable, Sendable {
    var bundle: String?
    var kind: EngineKind?
    var turns: [Turn] = []
    var draft = ""

    /// Written whole or not at all.
    func save(to url: URL = SavedChat.place) throws {
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try JSONEncoder().encode(self).write(to: url, options: .atomic)
    }

    /// What was saved; nil where nothing was. One that cannot be read is put aside, and said.
    static func load(from url: URL = SavedChat.place) throws -> SavedChat? {
        guard FileManager.default.fileExists(atPath: url.path) else { return nil }
        do {
            var saved = try JSONDecoder().decode(SavedChat.self, from: Data(contentsOf: url))
            for i in saved.turns.indices where saved.turns[i].isOpen {
                saved.turns[i].isOpen = false
                saved.turns[i].note = "The app was ended in the middle of this answer."
            }
            return saved
        } catch {
            let aside = url.appendingPathExtension("unreadable")
            try? FileManager.default.removeItem(at: aside)
            try? FileManager.default.moveItem(at: url, to: aside)
            throw Refusal(
                "the last conversation cannot be read", got: error, expected: "what this app writes",
                todo: "begin a new one; the file is kept as \(aside.lastPathComponent)")
        }
    }

    static var place: URL { URL.applicationSupportDirectory.appending(path: "chat.json") }
}

/// A question or an answer on the screen.
struct Turn: Codable, Equatable, Identifiable, Sendable {
    var id = UUID()
    var role: Message.Role
    var text: String
    /// How an answer ended, its speed, or what became of it.
    var note = ""
    /// The answer is still coming.
    var isOpen = false

    /// The conversation that the turns are. An answer without a word has no place in it, nor has its question.
    static func messages(_ turns: [Turn]) -> [Message] {
        var found: [Message] = []
        for turn in turns {
            if turn.role == .assistant, turn.text.isEmpty {
                if found.last?.role == .user { found.removeLast() }
            } else {
                found.append(Message(turn.role, turn.text))
            }
        }
        if found.last?.role == .user { found.removeLast() }
        return found
    }
}
