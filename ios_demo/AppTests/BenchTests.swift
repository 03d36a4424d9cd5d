import CoreML
import Foundation
import SmolshipCore
import Synchronization
import Tokenizers

@MainActor let benchTests: [(String, @MainActor () async throws -> Void)] = [
    ("a plan on Core ML writes its result", planned),
    ("a plan's strings go to the chat's tokenizer", tokenized),
    ("a run is ended, and leaves no result", ended),
    ("plans that the app cannot execute are refused", refusedPlans),
]

private func plan(engine: String = "coreml", info: String = "", strings: String? = nil) throws -> Plan {
    let ids = (1...40).map(String.init).joined(separator: ",")
    let text = """
        {"purpose": "\(strings == nil ? "bench" : "parity")", "strings": \(strings ?? "null"), "target": "\(engine)", "engine": "\(engine)", "threads": 1, "arithmetic": "", "layers": 0,
         "info": {"file": "model.mlpackage", "context": 512, "chunk": 8\(info)}, "calls": [], "cache": [], "schema": 1,
         "texts": [{"ids": [\(ids)], "at": [], "wanted": {"dtype": "int32", "shape": [0, 0], "base64": ""}}],
         "timing": {"prompts": [8, 32], "depths": [16], "tokens": 3, "repeats": 2, "warmups": 0, "sustained": 0},
         "loads": true}
        """
    return try Plan(Array(text.utf8))
}

@MainActor
private func benchmark(_ plan: Plan, _ flag: Flag = Flag()) throws -> (Benchmark, URL) {
    toyPackage = Toy()
    let bundle = try toyBundle(UUID().uuidString)
    let place = URL.documentsDirectory.appending(path: "Results/\(UUID().uuidString).json")
    return (Benchmark(plan: plan, bundle: bundle, place: place, stopping: flag) { _ in }, place)
}

@MainActor private func planned() async throws {
    let plan = try plan(info: #", "units": "CPU_ONLY""#)
    let (bench, place) = try benchmark(plan)
    let words = try await bench.run()
    try expect(words.first?.hasPrefix("Loaded in "), true)
    try expect(words.contains { $0.hasPrefix("Decoding behind 16 tokens") }, "\(words)")
    let result = try Json.parse(Data(contentsOf: place))
    try expect(result["plan"]?.stringValue, plan.digest)
    try expect(result["traits"]?["runtime"]?.stringValue, "Core ML, CPU_ONLY")
    try expect(result["times"]?["ttft_ms"]?.objectValue?.keys.sorted(), ["32", "8"])
    try expect(result["times"]?["gaps_ms"]?["16"]?.arrayValue?.count, 2)
    try expect(result["artifact"]?.stringValue, bench.bundle.artifactDigest(bench.bundle.manifest.target("coreml")!))
}

@MainActor private func tokenized() async throws {
    toyTokenizer = ToyTokens()
    let (bench, place) = try benchmark(try plan(strings: #"["<|start|>é", "b"]"#))
    _ = try await bench.run()
    let result = try Json.parse(Data(contentsOf: place))
    try expect(result["traits"]?["tokenizer"]?.stringValue, "swift-transformers")
    try expect(
        try result["strings"]?.text(),
        #"[{"around": [256, 195, 169], "bare": [256, 195, 169], "text": "é"}, {"around": [98], "bare": [98], "text": "b"}]"#
    )
}

@MainActor private func ended() async throws {
    let flag = Flag()
    flag.value.store(true, ordering: .relaxed)
    let (bench, place) = try benchmark(try plan(), flag)
    do {
        _ = try await bench.run()
        throw Failure(description: "it went on")
    } catch is CancellationError {}
    try expect(FileManager.default.fileExists(atPath: place.path), false)
}

@MainActor private func refusedPlans() async throws {
    for (plan, words) in [
        (try plan(engine: "executorch"), "Core ML alone"),
        (try plan(info: #", "units": "NPU""#), "unknown compute units"),
    ] {
        let (bench, _) = try benchmark(plan)
        try await expectRefusal(words) { _ = try await bench.run() }
    }
    // An altered package is found before Core ML sees it.
    let (bench, _) = try benchmark(try plan())
    try Data("x".utf8).write(to: bench.bundle.root.appending(path: "coreml/model.mlpackage/Data/weights"))
    try await expectRefusal("altered") { _ = try await bench.run() }
}
