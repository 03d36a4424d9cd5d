import Foundation
import SmolshipCore

/// Opens a bundle's engine: its files are held against the manifest first, then the model is compiled where that is
/// needed, and loaded. Away from the main thread.
struct Opening: Sendable {
    let bundle: ModelBundle
    let kind: EngineKind
    let units: ComputeUnits
    /// What is being done, for the screen.
    let said: @Sendable (String) -> Void

    /// A conversation that goes on from `messages`.
    func chat(_ settings: ChatSettings, _ messages: [Message]) async throws -> LiveChat {
        let render = try Prompt(bundle, thinking: settings.thinking).rendering
        try await check()
        let facts = bundle.manifest.generation
        switch kind {
        case .coreML, .executorch:
            said("Reading the tokenizer")
            let tokenizer = try await BundleTokenizer.open(bundle.root)
            let open = try await opener()
            said("Loading the model")
            let engine = try open()
            let chat = Chat(
                engine: engine, tokenizer: tokenizer, stopIds: facts.stopIds,
                sampling: try settings.sampling(recommended: facts.sampling, kind), messages: messages, render: render)
            return LiveChat(chat, close: engine.close)
        case .executorchRunner:
            let target = try target()
            try checkMemory(bytes(of: target))
            said("Loading the model")
            let engine = try ExecuTorchRunner(
                model: model(of: target), tokenizer: bundle.root.appending(path: "tokenizer.json"),
                capacity: bundle.manifest.context, ends: facts.ends.map(\.text))
            let chat = TextChat(
                engine: engine, sampling: try settings.sampling(recommended: facts.sampling, kind), messages: messages,
                render: render)
            return LiveChat(chat, close: engine.close)
        }
    }

    /// What loads the engine, and can do so again; the model is compiled for it first. The files were held against the
    /// manifest before.
    func opener() async throws -> @Sendable () throws -> any TokenEngine {
        let target = try target()
        let model = model(of: target)
        let (capacity, vocab, units) = (bundle.manifest.context, bundle.manifest.model.vocab, units)
        let bytes = bytes(of: target)
        try checkMemory(bytes)
        switch kind {
        case .coreML:
            let digest = bundle.artifactDigest(target)
            said("Compiling the model for this device; later openings skip this")
            let compiled = try await CompiledModels.url(of: model, bytes: bytes, digest: digest)
            return {
                do {
                    return try CoreMLEngine(compiled: compiled, capacity: capacity, vocab: vocab, units: units)
                } catch {
                    CompiledModels.forget(digest)  // what cannot be opened is compiled anew the next time
                    throw error
                }
            }
        case .executorch:
            guard let chunk = target.info["chunk"]?.intValue, chunk >= 1 else {
                throw Refusal(
                    "the manifest does not say how many tokens the program takes at once", got: target.info["chunk"],
                    expected: "a whole number", todo: "export the bundle again")
            }
            return { try ExecuTorchEngine(model: model, capacity: capacity, vocab: vocab, chunk: chunk) }
        case .executorchRunner:
            throw Refusal(
                "ExecuTorch's runner shows no logits", got: kind.title, expected: "Core ML or ExecuTorch",
                todo: "choose another engine")
        }
    }

    /// Holds all files against the manifest. Throws Refusal that lists what differs, or CancellationError.
    func check() async throws {
        said("Checking the files")
        var last = -1
        try bundle.verify { _, done, total in
            let percent = total > 0 ? 100 * done / total : 100
            if percent != last { said("Checking the files: \(percent) %") }
            last = percent
            return !Task.isCancelled
        }
    }

    /// Refuses a model that cannot fit: the system would end the app without a word. Weights count whole, as engines
    /// repack or copy them.
    private func checkMemory(_ weights: Int) throws {
        guard let available = DeviceState.now.available else { return }
        let model = bundle.manifest.model
        // 0 where layers differ, and the manifest does not say
        let sizes = [model.layers, model.kvHeads ?? 0, model.headDim ?? 0, bundle.manifest.context]
        let cache = product(sizes + [2, kind == .coreML ? 2 : 4])
        let (all, over) = weights.addingReportingOverflow(cache)
        guard over || all > available else { return }
        throw Refusal(
            "the model does not fit into memory", got: "\(megabytes(available)) that this app may still take",
            expected: "\(megabytes(over ? .max : all)): \(megabytes(weights)) of weights, \(megabytes(cache)) of cache",
            todo: "close other apps, take a smaller model, or export with a smaller --context")
    }

    private func model(of target: TargetEntry) -> URL {
        bundle.root.appending(path: target.folder).appending(path: target.file)
    }

    private func bytes(of target: TargetEntry) -> Int {
        bundle.manifest.files.filter { $0.path.hasPrefix(target.folder + "/") }.reduce(0) { $0 + $1.size }
    }

    private func target() throws -> TargetEntry {
        guard let target = kind.target(in: bundle.manifest) else {
            throw Refusal(
                "the bundle has nothing for this engine",
                got: bundle.manifest.targets.map(\.target).joined(separator: ", "),
                expected: kind.title, todo: "export with --to coreml,executorch")
        }
        return target
    }
}

/// Of numbers from a manifest: the largest number where they make more, 0 where one is negative.
private func product(_ numbers: [Int]) -> Int {
    numbers.reduce(1) { product, number in
        let (next, over) = product.multipliedReportingOverflow(by: max(number, 0))
        return over ? .max : next
    }
}
