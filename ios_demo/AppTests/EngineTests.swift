import CoreML
import ExecuTorch
import ExecuTorchLLM
import Foundation
import SmolshipCore

@MainActor let engineTests: [(String, @MainActor () async throws -> Void)] = [
    ("Core ML: whole chunks by prefill, the rest by decode", coreMLChunks),
    ("Core ML: packages that are not the manifest's are refused", coreMLRefusals),
    ("Core ML: a package is compiled once for each digest and system", compiledOnce),
    ("ExecuTorch: ids and positions, chunk by chunk", execuTorchCalls),
    ("ExecuTorch's runner: end token, lost bytes, stop, limits", runner),
]

private func packageFolder() throws -> URL {
    let url = URL.cachesDirectory.appending(path: "package.mlmodelc")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    return url
}

@MainActor private func coreMLChunks() async throws {
    let toy = Toy(chunk: 8)
    toyPackage = toy
    let engine = try CoreMLEngine(compiled: packageFolder(), capacity: 64, vocab: 300, units: .cpuAndGPU)
    try expect(engine.runtime, "Core ML, CPU_AND_GPU")
    try expect(engine.chunk, 8)
    let prompt = ToyTokens().encode(text: "<|start|>user\nhi<|end|>\n<|start|>assistant\n", addSpecialTokens: false)
    let logits = try engine.feed(prompt)!
    let first = ["prefill@0", "prefill@8", "decode@16", "decode@17", "decode@18", "decode@19", "decode@20"]
    try expect(toy.takeCalls(), first)
    try expect(engine.position, 21)
    try expect(logits.firstIndex(of: 1), Int("é".utf8.first!))
    // Rewound, the same tokens give the same logits, by decode alone.
    try engine.goBack(to: 15)
    try expect(try engine.feed(Array(prompt[15...])), logits)
    try expect(toy.takeCalls(), ["decode@15"] + first[2...])
    engine.close()
    try await expectRefusal("closed") { _ = try engine.forward([1]) }
}

@MainActor private func coreMLRefusals() async throws {
    let folder = try packageFolder()
    func open() throws -> CoreMLEngine { try CoreMLEngine(compiled: folder, capacity: 64, vocab: 300, units: .cpuOnly) }
    toyPackage = Toy(vocab: 299)
    try await expectRefusal("not the manifest's") { _ = try open() }
    toyPackage = Toy(decode: 2)
    try await expectRefusal("not the manifest's") { _ = try open() }
    toyPackage = Toy(chunk: 0)
    try await expectRefusal("not a decoder's") { _ = try open() }
    toyPackage = Toy()
    try await expectRefusal("cannot open") {
        _ = try CoreMLEngine(compiled: folder.appending(path: "none"), capacity: 64, vocab: 300, units: .all)
    }
}

@MainActor private func compiledOnce() async throws {
    toyPackage = Toy()
    let package = try toyBundle("compiled").root.appending(path: "coreml/model.mlpackage")
    let (one, other) = (String(repeating: "1", count: 64), String(repeating: "2", count: 64))
    let first = try await CompiledModels.url(of: package, bytes: 1, digest: one)
    let folder = first.deletingLastPathComponent()
    func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() }
    let before = try names()
    try expect(try await CompiledModels.url(of: URL(filePath: "/gone"), bytes: 1, digest: one), first)
    // What another version of the system compiled goes when this one compiles.
    let old = folder.appending(path: "\(other.prefix(32))-1.0.0.mlmodelc")
    try FileManager.default.createDirectory(at: old, withIntermediateDirectories: true)
    let second = try await CompiledModels.url(of: package, bytes: 1, digest: other)
    try expect(try names(), (before + [second.lastPathComponent]).sorted())
    try await expectRefusal("too little storage") {
        _ = try await CompiledModels.url(of: package, bytes: 1 << 60, digest: String(repeating: "3", count: 64))
    }
    try await expectRefusal("cannot compile") {
        _ = try await CompiledModels.url(
            of: URL(filePath: "/gone"), bytes: 1, digest: String(repeating: "4", count: 64))
    }
    CompiledModels.forget(allBut: [other])
    try expect(try names(), [second.lastPathComponent])
    CompiledModels.forget(other)
    try expect(try names(), [])
}

@MainActor private func execuTorchCalls() async throws {
    nonisolated(unsafe) var calls: [[Int64]] = []
    toyProgram = { ids, position in
        calls.append([position] + ids)
        var logits = [Float](repeating: 0, count: 300)
        logits[Int(ids.last!) + 1] = 1
        return logits
    }
    let engine = try ExecuTorchEngine(model: URL(filePath: "/model.pte"), capacity: 64, vocab: 300, chunk: 4)
    let logits = try engine.feed([10, 11, 12, 13, 14])!
    try expect(calls, [[0, 10, 11, 12, 13], [4, 14]])
    try expect(logits.firstIndex(of: 1), 15)
    try engine.goBack(to: 2)
    _ = try engine.feed([20])
    try expect(calls.last, [2, 20])
    try await expectRefusal("longer than the context") { _ = try engine.feed(Array(repeating: 1, count: 62)) }
}

@MainActor private func runner() async throws {
    toyRunner = { _ in ["Hel", "lo", "", "", " you", "<|end|>"] }
    let engine = try ExecuTorchRunner(
        model: URL(filePath: "/model.pte"), tokenizer: URL(filePath: "/tokenizer.json"), capacity: 512,
        ends: ["<|end|>"])
    var said = ""
    func ask(_ text: String, maxTokens: Int? = nil, _ sampling: Sampling = .greedy, until: String = "never") throws
        -> Ending
    {
        said = ""
        return try engine.generate(text, maxTokens: maxTokens, sampling: sampling) { piece in
            said += piece
            return !said.contains(until)
        }
    }
    let whole = try ask("hi")
    try expect(said, "Hello\u{FFFD} you")  // the bytes of two tokens did not pass
    try expect(whole.end, .stop)
    try expect(whole.tokens, 5)
    try expect(try ask("hi", maxTokens: 2).end, .maxTokens)
    try expect(said, "Hello")
    // The runner itself forgets a stop during the first piece.
    try expect(try ask("hi", until: "Hel").end, .interrupted)
    try expect(said, "Hel")
    try await expectRefusal("temperature alone") { _ = try ask("hi", try Sampling(temperature: 1, topP: 0.5)) }
    try await expectRefusal("a text to go on from") { _ = try ask("") }
    engine.reset()
    try expect(TextRunner.made.last?.prompts, ["hi", "hi", "hi", "reset"])
    engine.close()
    try await expectRefusal("closed") { _ = try ask("hi") }
}
