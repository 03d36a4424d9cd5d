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
            let place = bundle.root.appending(path: target.folder)
            said("Loading the model")
            let engine = try ExecuTorchRunner(
                model: place.appending(path: target.file), tokenizer: bundle.root.appending(path: "tokenizer.json"),
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
        let model = bundle.root.appending(path: target.folder).appending(path: target.file)
        let (capacity, vocab, units) = (bundle.manifest.context, bundle.manifest.model.vocab, units)
        switch kind {
        case .coreML:
            let digest = try bundle.artifactDigest(target)
            said("Compiling the model for this device; later openings skip this")
            let bytes = bundle.manifest.files.filter { $0.path.hasPrefix(target.folder + "/") }.reduce(0) { $0 + $1.size }
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
                    "the manifest does not say how many tokens the program takes at once", got: target.info["chunk"] as Any,
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

    private func target() throws -> TargetEntry {
        guard let target = kind.target(in: bundle.manifest) else {
            throw Refusal(
                "the bundle has nothing for this engine", got: bundle.manifest.targets.map(\.target).joined(separator: ", "),
                expected: kind.title, todo: "export with --to coreml,executorch")
        }
        return target
    }
}
