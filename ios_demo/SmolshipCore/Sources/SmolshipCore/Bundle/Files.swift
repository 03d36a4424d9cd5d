import Foundation

private let blockSize = 1 << 20

/// Work that goes on for a while: what is done, and of how much. It is broken off where this returns false.
public typealias OnProgress = (_ what: String, _ done: Int, _ total: Int) -> Bool

/// Bytes of the regular file at a path, links followed. Refuses folders, links to nowhere, FIFOs and devices without
/// opening them: opening a FIFO would hang.
func regularFile(_ url: URL, _ what: String) throws -> Int {
    var info = stat()
    guard stat(url.path, &info) == 0 else {
        if errno == ENOENT || errno == ENOTDIR {
            throw Refusal("no \(what)", got: "nothing at \(url.path)", expected: "a file")
        }
        throw Refusal("\(what) cannot be read", got: systemError(), expected: "a readable file")
    }
    guard info.st_mode & S_IFMT == S_IFREG else {
        throw Refusal("\(what) is not a regular file", got: url.path, expected: "a regular file")
    }
    return Int(info.st_size)
}

/// The whole of a regular file of at most `limit` bytes.
func readBytes(_ url: URL, _ what: String, limit: Int) throws -> [UInt8] {
    let size = try regularFile(url, what)
    guard size <= limit else {
        throw Refusal("\(what) is too large", got: "\(size) bytes", expected: "at most \(limit)")
    }
    var found: [UInt8] = []
    found.reserveCapacity(size)
    try readBlocks(url, what) { block in
        guard found.count + block.count <= limit else {
            throw Refusal("\(what) is too large", got: "a file that grows", expected: "at most \(limit)")
        }
        found += block
    }
    return found
}

/// Gives the file's bytes in blocks, each of which holds during its call.
func readBlocks(_ url: URL, _ what: String, _ take: (UnsafeRawBufferPointer) throws -> Void) throws {
    _ = try regularFile(url, what)
    let descriptor = open(url.path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
        throw Refusal("\(what) cannot be read", got: systemError(), expected: "a readable file")
    }
    defer { close(descriptor) }
    try withUnsafeTemporaryAllocation(byteCount: blockSize, alignment: 16) { block in
        while true {
            let count = read(descriptor, block.baseAddress!, block.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else {
                throw Refusal("\(what) cannot be read", got: systemError(), expected: "a readable file")
            }
            if count == 0 { return }
            try take(UnsafeRawBufferPointer(rebasing: block[..<count]))
        }
    }
}

/// SHA-256 of a file in hexadecimal. `between` is told the bytes of each block. Throws CancellationError where it returns
/// false.
func sha256(_ url: URL, _ what: String, between: (Int) -> Bool = { _ in true }) throws -> String {
    var hash = Sha256()
    try readBlocks(url, what) { block in
        hash.update(block)
        guard between(block.count) else { throw CancellationError() }
    }
    return hash.hex()
}

/// A file that is being written. Where the disk is full, or another error of the system ends it, a Refusal says so.
final class Output {
    private let descriptor: Int32
    private let name: String

    /// `new`: refused where something lies there already; else bytes are added at the end of what does.
    init(_ url: URL, name: String, new: Bool) throws {
        self.name = name
        let how = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (new ? O_EXCL : O_APPEND)
        descriptor = open(url.path, how, 0o644)
        guard descriptor >= 0 else { throw Output.refusal(name) }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = UnsafeRawBufferPointer(rebasing: rest)
            #if canImport(Darwin)
                let count = Darwin.write(descriptor, part.baseAddress!, part.count)
            #else
                let count = Glibc.write(descriptor, part.baseAddress!, part.count)
            #endif
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw Output.refusal(name) }
            rest = rest.dropFirst(count)
        }
    }

    /// Has the system put it on the disk.
    func finish() throws {
        guard fsync(descriptor) == 0 else { throw Output.refusal(name) }
    }

    deinit { close(descriptor) }

    private static func refusal(_ name: String) -> Refusal {
        if errno == ENOSPC || errno == EDQUOT { return noSpace("\(name) could not be written", got: systemError()) }
        return Refusal("\(name) cannot be written", got: systemError(), expected: "a place for a new file")
    }
}

func noSpace(_ what: String, got: Any, expected: Any? = nil) -> Refusal {
    Refusal(
        what, got: got, expected: expected, todo: "remove a bundle or something else from this device, and begin again")
}

func systemError() -> String { String(cString: strerror(errno)) }

/// Makes a file's folder below `root`.
func makeFolder(of path: String, below root: URL) throws {
    let folder = root.appending(path: path).deletingLastPathComponent()
    do {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    } catch {
        throw Refusal(
            "the folder of \(path) cannot be made", got: error.localizedDescription, expected: "a place for a folder")
    }
}

/// Removes what lies at a place, if anything.
func discard(_ url: URL) {
    try? FileManager.default.removeItem(at: url)
}

/// `root/name`, refused where it leaves `root` through a link. `name` is one that `relative` has let through.
func inside(_ root: URL, _ name: String) throws -> URL {
    let url = root.appending(path: name)
    let home = real(root) ?? root.path
    // Of what is not there yet, the part that is there is looked at.
    var there = url
    while real(there) == nil, there.path.utf8.count > root.path.utf8.count { there.deleteLastPathComponent() }
    let found = real(there) ?? home
    guard found == home || found.hasPrefix(home == "/" ? home : home + "/") else {
        throw Refusal(
            "a path leaves its folder through a link", got: "\(name) -> \(found)",
            expected: "real files inside \(root.path)",
            todo: "copy it with the files that its links lead to")
    }
    return url
}

private func real(_ url: URL) -> String? {
    guard let path = realpath(url.path, nil) else { return nil }
    defer { free(path) }
    return String(cString: path)
}
