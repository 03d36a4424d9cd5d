import CoreML
import ExecuTorchLLM
import Foundation
import SmolshipCore
import Tokenizers
import os

@MainActor let chatTests: [(String, @MainActor () async throws -> Void)] = [
    ("a chat: streamed, measured, its cache reused, saved and gone on with", wholeChat),
    ("stop, and a new chat", stopped),
    ("short of memory, off the screen", interrupted),
    ("what cannot be opened is said, and the question comes back", refusals),
    ("another bundle in the middle of an answer", anotherBundle),
    ("by ExecuTorch's runner", byRunner),
]

@MainActor private func begun(_ kind: EngineKind = .coreML, _ name: String = UUID().uuidString) throws -> (
    ChatModel, Toy
) {
    let toy = Toy()
    (toyPackage, toyTokenizer) = (toy, ToyTokens())
    let chat = ChatModel()
    chat.settings = ChatSettings()
    chat.choose(try toyBundle(name), kind)
    return (chat, toy)
}

@MainActor private func ask(_ chat: ChatModel, _ text: String) async throws {
    chat.draft = text
    try expect(chat.canSend, "it can be sent")
    chat.send()
    try expect(chat.isBusy, "it is under way")
    try await wait("end of the answer") { !chat.isBusy }
}

@MainActor private func wholeChat() async throws {
    let (chat, toy) = try begun()
    try await ask(chat, "hi ")
    try expect(chat.problem, nil)
    try expect(chat.state, .ready)
    try expect(chat.turns.map(\.text), ["hi", "é🙂 1"])
    try expect(chat.ending?.end, .stop)
    try expect(chat.ending?.tokens, 8)
    try expect(chat.ending?.ttftSeconds != nil && chat.ending?.tokensPerSecond != nil, "it is timed")
    try expect(toy.takeCalls().first, "prefill@0")
    try await ask(chat, "and now?")
    try expect(chat.turns.last?.text, "é🙂 3")
    try expect(chat.reused, 29)  // the first prompt and its answer, but for the end token
    try expect(toy.takeCalls().first, "prefill@29")
    // The app is ended; the next one shows the conversation, and goes on with it.
    let again = ChatModel()
    again.restore { name in try? ModelBundle(URL.documentsDirectory.appending(path: name)) }
    try expect(again.turns.map(\.text), ["hi", "é🙂 1", "and now?", "é🙂 3"])
    try expect(again.state, .idle)
    try await ask(again, "third")
    try expect(again.turns.last?.text, "é🙂 5")
}

@MainActor private func stopped() async throws {
    let (chat, _) = try begun()
    chat.draft = "long"
    chat.send()
    try await wait("first words") { chat.turns.last?.text.isEmpty == false }
    chat.stop("Stopped.")
    try await wait("end of the answer") { !chat.isBusy }
    let text = chat.turns.last!.text
    try expect(!text.isEmpty && text.count < 400, "a part of it stays: \(text.count)")
    try expect(chat.turns.last?.note, "Stopped.")
    try expect(chat.ending?.end, .interrupted)
    chat.newChat()
    try expect(chat.turns, [])
    try await ask(chat, "hi")
    try expect(chat.turns.last?.text, "é🙂 1")
}

@MainActor private func interrupted() async throws {
    let (chat, _) = try begun()
    for (interrupt, words, state) in [
        (chat.memoryWarning, "short of memory", ChatModel.State.idle), (chat.leavingScreen, "left the screen", .ready),
    ] {
        chat.draft = "long"
        chat.send()
        try await wait("first words") { chat.turns.last?.text.isEmpty == false }
        interrupt()
        try await wait("end of the answer") { !chat.isBusy }
        try expect(chat.turns.last!.note.contains(words), "\(chat.turns.last!.note)")
        try expect(chat.state, state)
    }
    chat.memoryWarning()  // with nothing under way
    try expect(chat.state, .idle)
    try expect(chat.turns.count, 4)
}

@MainActor private func refusals() async throws {
    let (chat, _) = try begun()
    let weights = chat.bundle!.root.appending(path: "coreml/model.mlpackage/Data/weights")
    let good = try Data(contentsOf: weights)
    try Data(String(repeating: "x", count: 5000).utf8).write(to: weights)
    try await ask(chat, "hi")
    try expect(chat.problem?.what, "the bundle was altered")
    try expect(chat.draft, "hi")
    try expect(chat.turns, [])
    try expect(chat.state, .idle)
    try FileManager.default.removeItem(at: weights)
    try await ask(chat, "hi")
    try expect(chat.problem!.got!.contains("weights"), "the file is named")
    try good.write(to: weights)
    try await ask(chat, "hi")
    try expect(chat.turns.last?.text, "é🙂 1")
    // A prompt beyond the context: nothing of it stays.
    chat.problem = nil
    try await ask(chat, String(repeating: "word ", count: 200))
    try expect(chat.problem?.what, "the conversation is longer than the context")
    try expect(chat.turns.count, 2)
    // A model that is larger than what is left.
    chat.unload()
    chat.problem = nil
    toyAvailableMemory = 100_000
    defer { toyAvailableMemory = 0 }
    try await ask(chat, "hi")
    try expect(chat.problem?.what, "the model does not fit into memory")
    try expect(chat.problem!.expected!.contains("of weights"), "the figures are said")
    toyAvailableMemory = 1_000_000_000
    try await ask(chat, "hi")
    try expect(chat.turns.last?.text, "é🙂 3")
    // Sizes of a manifest that no model has: counted as too much, whatever they multiply to.
    for layers in [Int.max, Int.max / 3] {
        chat.choose(try toyBundle("huge", layers: layers), .coreML)
        try await ask(chat, "hi")
        try expect(chat.problem?.what, "the model does not fit into memory")
    }
    // Bundles without a template that can be rendered, or without the engine's target.
    chat.choose(try toyBundle("untold", template: false), .coreML)
    try await ask(chat, "hi")
    try expect(chat.problem!.what.contains("chat template cannot be rendered"), chat.problem!.what)
    chat.choose(try toyBundle("other", targets: ["executorch"]), .coreML)
    try await ask(chat, "hi")
    try expect(chat.problem?.what, "the bundle has nothing for this engine")
}

@MainActor private func anotherBundle() async throws {
    let (chat, _) = try begun()
    chat.draft = "long"
    chat.send()
    try await wait("first words") { chat.turns.last?.text.isEmpty == false }
    chat.choose(try toyBundle("next"), .coreML)
    try await ask(chat, "hi")
    try expect(chat.turns.map(\.text), ["hi", "é🙂 1"])  // nothing of the answer before
    try await Task.sleep(for: .milliseconds(100))
    try expect(chat.turns.last?.text, "é🙂 1")
    chat.forget("next")
    try expect(chat.state, .empty)
    chat.isHeld = true
    chat.draft = "hi"
    try expect(chat.canSend, false)
}

@MainActor private func byRunner() async throws {
    toyRunner = { $0.contains("second") ? ["Two", "<|end|>"] : ["One", "<|end|>"] }
    let (chat, _) = try begun(.executorchRunner)
    try await ask(chat, "first")
    try await ask(chat, "second")
    try expect(chat.problem, nil)
    try expect(chat.turns.map(\.text), ["first", "One", "second", "Two"])
    let rest = "<|end|>\n<|start|>user\nsecond<|end|>\n<|start|>assistant\n"
    try expect(TextRunner.made.last!.prompts.last, rest)
    try expect(chat.reused > 0, "the text that is held is not fed again")
}
