import Foundation
import SmolshipCore

@MainActor let tokenTests: [(String, @MainActor () async throws -> Void)] = [
    ("byte-level tokens give the bytes they stand for", byteLevel),
    ("tokenizers whose decoders look around are refused", otherDecoders),
]

@MainActor let savedTests: [(String, @MainActor () async throws -> Void)] = [
    ("a conversation is saved and read again", savedAgain),
    ("a saved conversation that cannot be read is put aside", unreadable),
    ("turns as messages", turnsAsMessages),
]

@MainActor private func byteLevel() async throws {
    let file =
        #"{"decoder": {"type": "ByteLevel"}, "added_tokens": [{"id": 256, "special": true}, {"id": 258, "special": false}]}"#
    let bytes = try ByteLevel(tokenizer: Data(file.utf8))
    let tokens = ToyTokens()
    for id in 0..<256 { try expect(bytes.bytes(id, tokens.convertIdToToken(id)), [UInt8(id)]) }
    try expect(bytes.bytes(300, "ĠÃ©Ċ"), Array(" é\n".utf8))
    try expect(bytes.bytes(300, "日本"), Array("日本".utf8))  // no characters of the alphabet: as they are
    try expect(bytes.bytes(256, "<|start|>"), [])
    try expect(bytes.bytes(258, "<think>"), Array("<think>".utf8))
    try expect(bytes.bytes(999, nil), [])
}

@MainActor private func otherDecoders() async throws {
    let llama = #"{"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}}"#
    for (file, words) in [
        (llama, "ByteFallback, Fuse"), (#"{"decoder": null}"#, "no decoder"), ("[]", "cannot be read"),
        ("{", "cannot be read"),
    ] {
        try await expectRefusal(words) { _ = try ByteLevel(tokenizer: Data(file.utf8)) }
    }
    let nested = #"{"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}}"#
    _ = try ByteLevel(tokenizer: Data(nested.utf8))
}

private func place() throws -> URL {
    try FileManager.default.createDirectory(at: URL.cachesDirectory, withIntermediateDirectories: true)
    return URL.cachesDirectory.appending(path: "saved-\(UUID().uuidString)/chat.json")
}

@MainActor private func savedAgain() async throws {
    let url = try place()
    try expect(try SavedChat.load(from: url), nil)
    var saved = SavedChat(bundle: "toy", kind: .coreML, draft: "e\u{301} and \u{E9}")
    saved.turns = [Turn(role: .user, text: "long"), Turn(role: .assistant, text: "aa\r\n", isOpen: true)]
    try saved.save(to: url)
    let read = try SavedChat.load(from: url)!
    try expect(Array(read.draft.unicodeScalars), Array(saved.draft.unicodeScalars))
    try expect(read.turns.map(\.text), ["long", "aa\r\n"])
    try expect(read.turns[1].isOpen, false)
    try expect(read.turns[1].note.contains("ended in the middle"), "the answer is marked")
}

@MainActor private func unreadable() async throws {
    let url = try place()
    try SavedChat().save(to: url)
    try Data(#"{"turns": 3}"#.utf8).write(to: url)
    try await expectRefusal("cannot be read") { _ = try SavedChat.load(from: url) }
    try expect(FileManager.default.fileExists(atPath: url.path + ".unreadable"), "it is kept")
    try expect(try SavedChat.load(from: url), nil)
}

@MainActor private func turnsAsMessages() async throws {
    let turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", ""), ("user", "d")].map {
        Turn(role: Message.Role(rawValue: $0.0)!, text: $0.1)
    }
    try expect(Turn.messages(turns), [Message(.user, "a"), Message(.assistant, "b")])
}
