import Foundation
import Observation
import SmolshipCore
import UIKit

/// The bundles on this device: the folders in the app's Documents, which Files and Finder show.
@MainActor
@Observable
final class Library {
    private(set) var bundles: [Store.Stored] = []
    private(set) var free: Int?
    /// Bytes that broken-off downloads hold.
    private(set) var unfinished = 0
    private(set) var job: Job?
    var problem: Refusal?
    /// The address that was downloaded from last.
    var address = UserDefaults.standard.string(forKey: addressKey) ?? ""

    /// What is being brought here.
    struct Job: Equatable {
        var title: String
        var fraction: Double?
    }

    nonisolated static let addressKey = "address"
    nonisolated static let results = "Results"  // of the benchmark, beside the bundles
    private var work: Task<Void, Never>?

    /// Look again what is there.
    func refresh() {
        do {
            let store = try Library.store()
            bundles = try store.list().filter { ![Library.results, "Inbox"].contains($0.name) }
            unfinished = try store.unfinishedBytes()
            free = freeSpace(store.root)
            excludeFromBackup(store.root)
        } catch {
            problem = Refusal(of: error)
        }
    }

    func bundle(_ name: String) -> ModelBundle? {
        bundles.first { $0.name == name }.flatMap { try? $0.bundle.get() }
    }

    /// Copy the bundle in a folder that a person picked.
    func copy(from folder: URL) {
        bring("Copying \(folder.lastPathComponent)") { store, progress in
            let scoped = folder.startAccessingSecurityScopedResource()
            defer { if scoped { folder.stopAccessingSecurityScopedResource() } }
            _ = try store.copy(from: folder, as: folder.lastPathComponent, progress: progress)
        }
    }

    /// Fetch the bundle whose manifest.json lies at `address`. What was broken off goes on.
    func download() {
        guard let url = URL(string: address.trimmingCharacters(in: .whitespaces)), url.host() != nil,
            !url.lastPathComponent.isEmpty, url.lastPathComponent != "/"
        else {
            problem = Refusal(
                "the address cannot be used", got: address,
                expected: "http://computer.local:8000/smollm2, the bundle's folder")
            return
        }
        UserDefaults.standard.set(address, forKey: Library.addressKey)
        bring("Downloading \(url.lastPathComponent)") { store, progress in
            let http = URLSessionHttp()
            defer { http.close() }
            _ = try await store.download(from: url, as: url.lastPathComponent, http: http, progress: progress)
        }
    }

    func cancel() { work?.cancel() }

    func remove(_ name: String) {
        do {
            try Library.store().remove(name)
        } catch {
            problem = Refusal(of: error)
        }
        refresh()
        let kept = bundles.compactMap { try? $0.bundle.get() }.flatMap { bundle in
            bundle.manifest.targets.map(bundle.artifactDigest)
        }
        CompiledModels.forget(allBut: kept)
    }

    func removeUnfinished() {
        (try? Library.store())?.removeUnfinished()
        refresh()
    }

    private func bring(
        _ title: String, _ body: @escaping @Sendable (Store, @escaping OnProgress) async throws -> Void
    ) {
        guard job == nil else { return }
        job = Job(title: title)
        UIApplication.shared.isIdleTimerDisabled = true
        let progress = Percent { percent in
            Task { @MainActor [weak self] in self?.job?.fraction = Double(percent) / 100 }
        }
        work = Task {
            let task = Task.detached(priority: .userInitiated) {
                try await body(try Library.store()) { _, done, total in progress.tell(done, of: total) }
            }
            do {
                try await withTaskCancellationHandler {
                    try await task.value
                } onCancel: {
                    task.cancel()
                }
            } catch is CancellationError {
                // the person broke it off
            } catch {
                if !task.isCancelled { problem = Refusal(of: error) }
            }
            job = nil
            UIApplication.shared.isIdleTimerDisabled = false
            refresh()
        }
    }

    nonisolated private static func store() throws -> Store { try Store(URL.documentsDirectory) }

    /// All but the results: bundles, and what was broken off, can be brought here again.
    private func excludeFromBackup(_ root: URL) {
        for name in (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        where name != Library.results {
            var url = root.appending(path: name)
            var values = URLResourceValues()
            values.isExcludedFromBackup = true
            try? url.setResourceValues(values)
        }
    }
}

/// Tells each whole percent once, and whether to go on.
final class Percent: @unchecked Sendable {
    private let said: @Sendable (Int) -> Void
    private var last = -1  // of the one task that tells

    init(_ said: @escaping @Sendable (Int) -> Void) { self.said = said }

    func tell(_ done: Int, of total: Int) -> Bool {
        let percent = total > 0 ? Int(100 * Double(done) / Double(total)) : 0
        if percent != last { said(percent) }
        last = percent
        return !Task.isCancelled
    }
}
