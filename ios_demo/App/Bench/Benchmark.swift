import Foundation
import SmolshipCore
import Synchronization

/// One run of a plan on a bundle's Core ML package; its result is written to `place`.
struct Benchmark: Sendable {
    let plan: Plan
    let bundle: ModelBundle
    let place: URL
    let stopping: Flag
    let tell: @Sendable (Stage) -> Void

    /// How far it is.
    struct Stage: Equatable, Sendable {
        var what: String
        var done = 0
        var total = 0
    }

    /// What a person reads of the result.
    func run() async throws -> [String] {
        guard plan.engine == "coreml" else {
            throw Refusal(
                "this app executes plans on Core ML alone", got: plan.engine, expected: "coreml",
                todo: "execute the others on a board or a phone: docs/devices.md")
        }
        guard let target = bundle.manifest.target(plan.target), target.engine == plan.engine else {
            throw Refusal(
                "the bundle has not what the plan is for", got: plan.target, todo: "choose the bundle it was made of")
        }
        let units = try units()
        let machine = machine(target)
        let opening = Opening(bundle: bundle, kind: .coreML, units: units) { tell(Stage(what: $0)) }
        try await opening.check()
        let open = try await opening.opener()
        let tokenizer = await tokenizer()
        let result = try await alone {
            try Executor(plan, machine: machine, memory: memory, tokenizer: tokenizer).run(open: open) {
                what, done, total in
                tell(Stage(what: what, done: done, total: total))
                return !stopping.value.load(ordering: .relaxed)
            } token: { _ in
                !stopping.value.load(ordering: .relaxed)
            }
        }
        let files = FileManager.default
        try files.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
        try result.write(to: place)
        return words(result)
    }

    /// The chat's, where it can be had. Parity alone asks for it; a benchmark's memory is the model's.
    private func tokenizer() async -> BundleTokenizer? {
        guard plan.purpose.hasSuffix("parity") else { return nil }
        return try? await BundleTokenizer.open(bundle.root)
    }

    private func units() throws -> ComputeUnits {
        guard let asked = plan.info["units"] else { return .cpuAndGPU }
        guard let units = asked.stringValue.flatMap(ComputeUnits.init) else {
            throw Refusal(
                "unknown compute units", got: asked,
                expected: ComputeUnits.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return units
    }

    private func machine(_ target: TargetEntry) -> Machine {
        let system = ProcessInfo.processInfo.operatingSystemVersionString
        let app = Foundation.Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String ?? "unknown"
        return Machine(
            artifact: bundle.artifactDigest(target), versions: ["smolship-ios-demo": app, "coreml": system],
            system: "iOS \(system)", cpu: machineName)
    }

    @Sendable private func memory() -> Memory? {
        TaskMemory.now.map { Memory(anonymous: $0.footprint, fileBacked: $0.fileBacked, peak: $0.peakResident) }
    }

    private func words(_ result: PlanResult) -> [String] {
        var found: [String] = []
        if let loads = result.loads {
            found.append("Loaded in \(rounded(loads.coldMs)) ms, again in \(rounded(loads.warmMs)) ms.")
        }
        for (length, times) in (result.times?.ttftMs ?? [:]).sorted(by: { $0.key < $1.key }) {
            found.append(
                "\(length) tokens fed: first token after \(rounded(median(times))) ms, median of \(times.count).")
        }
        for depth in (result.times?.gapsMs ?? [:]).keys.sorted() {
            let rates = result.times?.decodeTokensPerSecond(depth) ?? []
            found.append(
                "Decoding behind \(depth) tokens: \(rounded(median(rates))) tokens/s, median of \(rates.count).")
        }
        if !result.seen.isEmpty { found.append("\(result.seen.count) calls looked at.") }
        if let generated = result.generated { found.append("An answer of \(generated.ids.count) tokens.") }
        return found + ["Took \(rounded(result.seconds)) s."]
    }

    private func rounded(_ number: Double) -> String {
        number.formatted(.number.precision(.fractionLength(1)))
    }
}

/// Whether to end, asked on one thread and said on another.
final class Flag: Sendable {
    let value = Atomic(false)
}

/// Computes for long on a thread of its own: Swift's own are few, and are not to be held up.
private func alone<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue(label: "dev.smolship.bench", qos: .userInitiated).async {
            continuation.resume(with: Result { try body() })
        }
    }
}
