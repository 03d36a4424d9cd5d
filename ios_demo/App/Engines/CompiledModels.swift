import CoreML
import Foundation
import SmolshipCore

/// Core ML packages compiled for this device. They lie in Caches, one for each digest and system: the system may
/// delete them, and a new version of it compiles anew.
enum CompiledModels {
    private static let spared = 200_000_000  // bytes that the app leaves to others
    private static var folder: URL { URL.cachesDirectory.appending(path: "compiled", directoryHint: .isDirectory) }

    /// The package compiled: at once where it was compiled before, else after some seconds to minutes.
    static func url(of package: URL, bytes: Int, digest: String) async throws -> URL {
        let place = folder.appending(path: name(digest), directoryHint: .isDirectory)
        let files = FileManager.default
        if files.fileExists(atPath: place.path) { return place }
        if let free = freeSpace(URL.cachesDirectory), free < bytes + spared {
            throw Refusal(
                "too little storage for the compiled model", got: "\(megabytes(free)) free",
                expected: megabytes(bytes + spared), todo: "remove a bundle, or something else from this device")
        }
        let made: URL
        do {
            made = try await MLModel.compileModel(at: package)
        } catch {
            throw Refusal(
                "Core ML cannot compile the package", got: error.localizedDescription,
                expected: "a package for iOS 18", todo: "export the bundle again")
        }
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        forget { $0.hasPrefix(digest.prefix(32)) }  // of an earlier system
        do {
            try files.moveItem(at: made, to: place)
        } catch  where files.fileExists(atPath: place.path) {  // another opening was faster
            try? files.removeItem(at: made)
        }
        return place
    }

    /// Forget one that cannot be opened, or all but those of `digests`.
    static func forget(_ digest: String) {
        forget { $0 == name(digest) }
    }

    static func forget(allBut digests: [String]) {
        let kept = Set(digests.map(name))
        forget { !kept.contains($0) }
    }

    private static func forget(where wanted: (String) -> Bool) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names where wanted(name) { try? FileManager.default.removeItem(at: folder.appending(path: name)) }
    }

    private static func name(_ digest: String) -> String {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        let system = "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
        return "\(digest.prefix(32))-\(system).mlmodelc"
    }
}

/// Bytes as people read them.
func megabytes(_ bytes: Int) -> String {
    bytes < 10_000_000_000 ? "\((bytes + 500_000) / 1_000_000) MB" : "\(bytes / 1_000_000_000) GB"
}
