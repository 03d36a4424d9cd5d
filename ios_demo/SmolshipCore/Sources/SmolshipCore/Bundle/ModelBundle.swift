import Foundation

/// A bundle: the folder that `smolship export` writes. Opening reads the manifest alone; files are checked when they
/// are used.
public struct ModelBundle: Sendable {
    public let root: URL
    public let manifest: Manifest
    /// SHA-256 of the manifest, which names the bundle with all its files.
    public let digest: String

    public init(_ root: URL) throws {
        var info = stat()
        guard stat(root.path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR else {
            throw Refusal("no such bundle", got: root.path, expected: "a folder that `smolship export` wrote")
        }
        let url = root.appending(path: Manifest.name)
        guard stat(url.path, &info) == 0 else {
            throw Refusal(
                "not a smolship bundle", got: "a folder without \(Manifest.name)",
                expected: "a folder that `smolship export` wrote")
        }
        let bytes = try readBytes(url, Manifest.name, limit: Manifest.limit)
        self.root = root
        manifest = try Manifest(bytes)
        digest = Sha256.hex(bytes)
        for target in manifest.targets { _ = try inside(root, "\(target.folder)/\(target.file)") }
        for file in manifest.files { _ = try inside(root, file.path) }
    }

    /// Compares the files below a sub-folder with the manifest. Throws Refusal that lists what differs, or
    /// CancellationError where `progress` returns false.
    public func verify(below: String = "", progress: OnProgress = { _, _, _ in true }) throws {
        let problems = try checkFiles(root, manifest, below: below, progress: progress)
        guard problems.isEmpty else {
            throw Refusal(
                "the bundle was altered", got: problems.prefix(5).map(\.description).joined(separator: "; "),
                expected: "files as in the manifest", todo: "export it again, or copy it again")
        }
    }

    /// A file of the bundle, hashed.
    public func read(_ path: String, limit: Int = 64 << 20) throws -> [UInt8] {
        guard let listed = manifest.file(path) else {
            throw Refusal("the bundle has no \(path)", got: root.lastPathComponent, todo: "export it again")
        }
        let bytes = try readBytes(try inside(root, path), path, limit: limit)
        guard bytes.count == listed.size, Sha256.hex(bytes) == listed.sha256 else {
            throw Refusal(
                "the bundle was altered", got: "\(path): its SHA-256 is not the manifest's",
                expected: "files as in the manifest",
                todo: "export it again, or copy it again")
        }
        return bytes
    }

    /// The digest that the harness's results state of an artifact; see Manifest.
    public func artifactDigest(_ target: TargetEntry) -> String { manifest.artifactDigest(target) }
}
