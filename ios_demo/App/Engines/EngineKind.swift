import SmolshipCore

/// What can run a bundle here.
enum EngineKind: String, CaseIterable, Codable, Identifiable, Sendable {
    case coreML
    case executorch
    case executorchRunner

    var id: Self { self }

    var title: String {
        switch self {
        case .coreML: "Core ML"
        case .executorch: "ExecuTorch"
        case .executorchRunner: "ExecuTorch's runner"
        }
    }

    /// What it leaves to others, in words.
    var note: String {
        switch self {
        case .coreML: "Runs on the GPU; compiled on this device when it is first opened."
        case .executorch: "Runs on the CPU, with this app's sampling."
        case .executorchRunner: "Runs on the CPU, with a tokenizer and loop of its own; samples by temperature alone."
        }
    }

    /// The engine's name in a manifest.
    private var engine: String {
        switch self {
        case .coreML: "coreml"
        case .executorch, .executorchRunner: "executorch"
        }
    }

    /// The artifact that it opens; nil where the bundle has none.
    func target(in manifest: Manifest) -> TargetEntry? {
        manifest.targets.first { $0.engine == engine }
    }

    /// Those that the bundle has an artifact for.
    static func kinds(of manifest: Manifest) -> [EngineKind] {
        allCases.filter { $0.target(in: manifest) != nil }
    }
}
