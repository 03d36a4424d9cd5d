import Foundation
import Observation
import SmolshipCore
import UIKit

/// The benchmark screen's state: one plan of the harness, executed on Core ML.
@MainActor
@Observable
final class BenchModel {
    private(set) var plan: Plan?
    private(set) var planName = ""
    private(set) var running: Benchmark.Stage?
    /// Files in the app's Documents/Results, the newest first.
    private(set) var results: [URL] = []
    /// What is to be known of the last run beside its result.
    private(set) var notes: [String] = []
    var problem: Refusal?

    private var stopping: Flag?

    nonisolated static var folder: URL {
        URL.documentsDirectory.appending(path: Library.results, directoryHint: .isDirectory)
    }

    /// Read a plan that a person picked.
    func choose(_ url: URL) {
        let scoped = url.startAccessingSecurityScopedResource()
        defer { if scoped { url.stopAccessingSecurityScopedResource() } }
        do {
            plan = try Plan(Data(contentsOf: url, options: .mappedIfSafe))
            planName = url.deletingPathExtension().lastPathComponent
        } catch {
            plan = nil
            problem = Refusal(of: error)
        }
    }

    /// Why a bundle is not what the plan was made for; nil where it is.
    func mismatch(_ bundle: ModelBundle) -> String? {
        guard let plan else { return nil }
        guard let entry = bundle.manifest.target(plan.target), entry.engine == plan.engine else {
            return "The plan is for \(plan.target), which the bundle has not."
        }
        let given = JsonObject(plan.info.filter { $0.0 != "units" })
        return given == entry.info ? nil : "The plan was made for another export."
    }

    func run(_ bundle: ModelBundle) {
        guard let plan, running == nil else { return }
        let flag = Flag()
        (stopping, notes, running) = (flag, [], Benchmark.Stage(what: "Beginning"))
        UIApplication.shared.isIdleTimerDisabled = true
        let place = BenchModel.folder.appending(path: "\(planName)-result.json")
        let tell: @Sendable (Benchmark.Stage) -> Void = { stage in
            Task { @MainActor [weak self] in if self?.running != nil { self?.running = stage } }
        }
        Task {
            let before = ProcessInfo.processInfo.thermalState
            do {
                notes = try await Benchmark(plan: plan, bundle: bundle, place: place, stopping: flag, tell: tell).run()
            } catch is CancellationError {
                notes = ["Ended before its end; there is no result."]
            } catch {
                problem = Refusal(of: error)
            }
            let after = ProcessInfo.processInfo.thermalState
            notes.append("The device was \(before.words) at the start, and \(after.words) at the end.")
            (running, stopping) = (nil, nil)
            UIApplication.shared.isIdleTimerDisabled = false
            list()
        }
    }

    func stop() { stopping?.value.store(true, ordering: .relaxed) }

    func leavingScreen() { stop() }  // the GPU would not go on
    func memoryWarning() { stop() }

    func list() {
        let files = FileManager.default
        let found = try? files.contentsOfDirectory(
            at: BenchModel.folder, includingPropertiesForKeys: [.contentModificationDateKey])
        results = (found ?? []).filter { $0.pathExtension == "json" && !$0.lastPathComponent.hasPrefix(".") }
            .map {
                (
                    $0,
                    (try? $0.resourceValues(forKeys: [.contentModificationDateKey]))?.contentModificationDate
                        ?? .distantPast
                )
            }
            .sorted { $0.1 > $1.1 }.map(\.0)
    }

    func remove(at places: IndexSet) {
        for url in places.map({ results[$0] }) { try? FileManager.default.removeItem(at: url) }
        list()
    }
}
