import Foundation

@testable import SmolshipCore

/// The bytes of a bundle that holds these files.
func manifest(of files: [String: [UInt8]]) throws -> [UInt8] {
    var json = try Vectors.json("manifest").arrayValue![0]["manifest"]!.objectValue!
    json["targets"] = .object([:])
    json["files"] = .object(
        JsonObject(
            files.sorted { $0.key < $1.key }.map { path, bytes in
                (path, .object(["size": .int(bytes.count), "sha256": .string(Sha256.hex(bytes))]))
            }))
    return try Json.object(json).bytes()
}

/// Writes a bundle's files and manifest into a folder.
func write(_ files: [String: [UInt8]], into folder: URL, manifest bytes: [UInt8]? = nil) throws {
    let all = files.merging([Manifest.name: try bytes ?? manifest(of: files)]) { $1 }
    for (path, bytes) in all {
        let url = folder.appending(path: path)
        try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: url)
    }
}

func contents(_ folder: URL) throws -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    for path in try filesBelow(folder) { found[path] = [UInt8](try Data(contentsOf: folder.appending(path: path))) }
    return found
}

/// Bytes of a file that repeats itself nowhere.
func bytes(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    let random = Pcg64(seed: seed)
    return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
}
