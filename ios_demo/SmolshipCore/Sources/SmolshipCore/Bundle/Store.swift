import Foundation

/// The bundles in the app's folder, one sub-folder each.
public struct Store: Sendable {
    public let root: URL
    private let freeBytes: @Sendable (URL) -> Int?

    private static let importing = ".import-"
    private static let mine = importing + UUID().uuidString + "-"  // of this process
    private static let downloads = ".downloads"
    private static let reserve = 64 << 20  // bytes that stay free

    /// A sub-folder of the store: a bundle, or why it is none.
    public struct Stored: Sendable {
        public let name: String
        public let bundle: Swift.Result<ModelBundle, Refusal>
    }

    /// Makes the folder where it is not there, and removes what imports of an ended process have left.
    public init(_ root: URL, freeBytes: @escaping @Sendable (URL) -> Int? = freeSpace) throws {
        (self.root, self.freeBytes) = (root, freeBytes)
        try makeFolder(of: "x", below: root)
        for name in try names() where name.hasPrefix(Store.importing) && !name.hasPrefix(Store.mine) {
            discard(root.appending(path: name))
        }
    }

    /// By name.
    public func list() throws -> [Stored] {
        try names().filter { !$0.hasPrefix(".") && isFolder($0) }.sorted().map { name in
            do {
                return Stored(name: name, bundle: .success(try ModelBundle(root.appending(path: name))))
            } catch {
                return Stored(name: name, bundle: .failure(error as? Refusal ?? Refusal("no bundle", got: error)))
            }
        }
    }

    public func open(_ name: String) throws -> ModelBundle {
        try ModelBundle(root.appending(path: try checked(name)))
    }

    public func remove(_ name: String) throws {
        let folder = root.appending(path: try checked(name))
        do {
            try FileManager.default.removeItem(at: folder)
        } catch {
            throw Refusal(
                "the bundle could not be removed", got: error.localizedDescription, expected: "a bundle that is there")
        }
    }

    /// Copies the bundle in another folder, such as a file picker gives, and hashes it on the way. It is there when it is
    /// complete; an older one of the name is then replaced, if `replace` says so. Throws Refusal, or CancellationError
    /// where `progress` returns false; nothing is left behind then.
    public func copy(
        from source: URL, as name: String, replace: Bool = false, progress: OnProgress = { _, _, _ in true }
    ) throws -> ModelBundle {
        try refuseTaken(name, replace)
        let raw = try readBytes(source.appending(path: Manifest.name), Manifest.name, limit: Manifest.limit)
        let manifest = try Manifest(raw)
        try refuseUnsafe(manifest)
        try checkSpace(manifest.bytes)
        let work = root.appending(path: Store.mine + UUID().uuidString)
        defer { discard(work) }
        var done = 0
        for file in manifest.files {
            try makeFolder(of: file.path, below: work)
            try copy(file, from: try inside(source, file.path), to: work.appending(path: file.path)) { count in
                done += count
                return progress("copying \(file.path)", done, manifest.bytes)
            }
        }
        try makeFolder(of: "x", below: work)
        let output = try Output(work.appending(path: Manifest.name), name: Manifest.name, new: true)
        try raw.withUnsafeBytes(output.write)
        try output.finish()
        return try place(work, name, replace)
    }

    /// Fetches a bundle from a server; see Download. What was broken off is kept, and goes on with the next call of the
    /// same address.
    public func download(
        from address: URL, as name: String, http: any Http, replace: Bool = false,
        progress: OnProgress = { _, _, _ in true }
    ) async throws -> ModelBundle {
        try refuseTaken(name, replace)
        let folder = root.appending(path: "\(Store.downloads)/\(Sha256.hex(address.absoluteString.utf8))")
        let made = try await Download(from: address, into: folder, http: http, freeBytes: freeBytes).run(
            progress: progress)
        let bundle = try place(made, name, replace)
        discard(folder)
        return bundle
    }

    /// Bytes that broken-off downloads hold.
    public func unfinishedBytes() throws -> Int {
        let folder = root.appending(path: Store.downloads)
        guard isFolder(Store.downloads) else { return 0 }
        return try filesBelow(folder).reduce(0) { $0 + ((try? regularFile(folder.appending(path: $1), $1)) ?? 0) }
    }

    /// Gives up all broken-off downloads.
    public func removeUnfinished() { discard(root.appending(path: Store.downloads)) }

    private func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: root.path) }

    private func isFolder(_ name: String) -> Bool {
        var info = stat()
        return lstat(root.appending(path: name).path, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
    }

    private func checked(_ name: String) throws -> String {
        guard !name.hasPrefix(".") else {
            throw Refusal("a bundle's name cannot be used", got: name, expected: "one without a dot in front")
        }
        return try plainName(name, "a bundle's name")
    }

    private func refuseTaken(_ name: String, _ replace: Bool) throws {
        if isFolder(try checked(name)), !replace {
            throw Refusal(
                "a bundle of that name is here already", got: name, expected: "another name",
                todo: "remove that one first, or replace it")
        }
    }

    private func checkSpace(_ bytes: Int) throws {
        if let free = freeBytes(root), bytes > max(free - Store.reserve, 0) {
            throw noSpace(
                "too little storage for the bundle", got: "\(free) bytes free",
                expected: "\(bytes) and \(Store.reserve) to spare")
        }
    }

    private func copy(_ file: ListedFile, from source: URL, to target: URL, between: (Int) -> Bool) throws {
        let size = try regularFile(source, file.path)
        let output = try Output(target, name: file.path, new: true)
        var hash = Sha256()
        var count = 0
        if size == file.size {
            try readBlocks(source, file.path) { block in
                count += block.count
                guard count <= file.size else { return }
                hash.update(block)
                try output.write(block)
                guard between(block.count) else { throw CancellationError() }
            }
            try output.finish()
        }
        guard size == file.size, count == size, hash.hex() == file.sha256 else {
            throw Refusal(
                "the bundle was altered",
                got:
                    "\(file.path): \(size == file.size ? "its SHA-256 is not the manifest's" : "\(size) bytes, the manifest says \(file.size)")",
                expected: "files as in the manifest", todo: "export it again, or copy it again")
        }
    }

    /// Gives a complete bundle its name in one step.
    private func place(_ work: URL, _ name: String, _ replace: Bool) throws -> ModelBundle {
        let target = root.appending(path: name)
        let old = root.appending(path: Store.mine + UUID().uuidString)
        defer { discard(old) }
        if isFolder(name), replace { rename(target.path, old.path) }
        guard rename(work.path, target.path) == 0 else {
            let why = systemError()
            rename(old.path, target.path)
            throw Refusal("the bundle could not be put in its place", got: why, expected: "a free name in \(root.path)")
        }
        return try ModelBundle(target)
    }
}
