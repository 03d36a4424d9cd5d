import Foundation

/// A bundle that comes from a server, file by file, into a folder. What was broken off goes on where it was; each file's
/// size and SHA-256 are checked before it counts.
///
///     folder/bundle/…          files that are complete
///     folder/SHA-256.partial   the one that is not, by the hash that it is to have
public struct Download: Sendable {
    /// Where the bundle's manifest.json lies.
    public let source: URL
    public let folder: URL
    private let http: any Http
    private let freeBytes: @Sendable (URL) -> Int?

    private static let attempts = 3  // of a file that comes altered, or breaks off without a byte
    private static let reserve = 64 << 20  // bytes that stay free

    public init(
        from source: URL, into folder: URL, http: any Http, freeBytes: @escaping @Sendable (URL) -> Int? = freeSpace
    ) {
        (self.source, self.folder, self.http, self.freeBytes) = (source, folder, http, freeBytes)
    }

    private var bundle: URL { folder.appending(path: "bundle") }

    /// Fetches what is missing; the bundle's folder, complete. Throws Refusal for what cannot be used or went wrong,
    /// CancellationError where the task was cancelled or `progress` returns false; what came stays and counts next time.
    public func run(progress: OnProgress = { _, _, _ in true }) async throws -> URL {
        try makeFolder(of: "bundle/x", below: folder)
        let raw = try await manifest()
        let manifest = try Manifest(raw)
        try refuseUnsafe(manifest)
        try forget(otherThan: manifest)
        try keep(raw)
        try checkSpace(manifest)
        var done = manifest.files.reduce(0) { $0 + (isComplete($1) ? $1.size : 0) }
        for file in manifest.files where !isComplete(file) {
            let before = done
            try await fetch(file) { have in
                done = before + have
                return progress("fetching \(file.path)", done, manifest.bytes)
            }
            done = before + file.size
        }
        return bundle
    }

    private func manifest() async throws -> [UInt8] {
        let answer = try await http.get(source.appending(path: Manifest.name), from: 0)
        guard answer.status == 200 else { throw refusal(Manifest.name, "status \(answer.status)") }
        var raw: [UInt8] = []
        for try await part in answer.body {
            raw += part
            guard raw.count <= Manifest.limit else {
                throw Refusal(
                    "\(Manifest.name) is too large", got: "\(raw.count) bytes", expected: "at most \(Manifest.limit)")
            }
        }
        if let total = answer.total, total != raw.count {
            throw refusal(Manifest.name, "\(raw.count) of \(total) bytes")
        }
        return raw
    }

    /// Removes what an earlier manifest listed and this one does not, or with another hash.
    private func forget(otherThan manifest: Manifest) throws {
        let old = (try? readBytes(bundle.appending(path: Manifest.name), Manifest.name, limit: Manifest.limit)).flatMap
        { try? Manifest($0) }
        for name in try filesBelow(bundle) {
            let listed = manifest.file(name)
            if listed == nil || listed != old?.file(name) { discard(bundle.appending(path: name)) }
        }
        let wanted = Set(manifest.files.map(\.sha256))
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) where name.hasSuffix(".partial") {
            if !wanted.contains(String(name.dropLast(8))) { discard(folder.appending(path: name)) }
        }
    }

    /// In one step: without the manifest that they came with, complete files count as unknown.
    private func keep(_ manifest: [UInt8]) throws {
        let temporary = folder.appending(path: "manifest.partial")
        discard(temporary)
        let output = try Output(temporary, name: Manifest.name, new: true)
        try manifest.withUnsafeBytes(output.write)
        try output.finish()
        try put(temporary, at: Manifest.name)
    }

    private func checkSpace(_ manifest: Manifest) throws {
        var missing = manifest.bytes
        for file in manifest.files {
            missing -= isComplete(file) ? file.size : (try? regularFile(partial(file), file.path)) ?? 0
        }
        if let free = freeBytes(folder), missing > max(free - Download.reserve, 0) {
            throw noSpace(
                "too little storage for the bundle", got: "\(free) bytes free",
                expected: "\(missing + Download.reserve)")
        }
    }

    private func partial(_ file: ListedFile) -> URL { folder.appending(path: file.sha256 + ".partial") }

    /// Only files whose hash was right come to their place, and `forget` has removed those of another manifest.
    private func isComplete(_ file: ListedFile) -> Bool {
        (try? regularFile(bundle.appending(path: file.path), file.path)) == file.size
    }

    private func fetch(_ file: ListedFile, progress: (Int) -> Bool) async throws {
        let partial = partial(file)
        var failed: Refusal?
        var left = Download.attempts
        while left > 0 {
            var have = (try? regularFile(partial, file.path)) ?? 0
            let before = have
            if have < file.size || file.size == 0 {
                failed = try await append(file, to: partial, from: have, progress: progress)
                have = (try? regularFile(partial, file.path)) ?? 0
            }
            if have == file.size, try hash(partial, file, progress) == file.sha256 { return try place(file, partial) }
            if have >= file.size {
                discard(partial)  // nothing says which of its bytes are right
                failed = Refusal(
                    "\(file.path) comes altered", got: "another SHA-256 than the manifest's, or too many bytes",
                    expected: "the file that \(Manifest.name) lists",
                    todo: "tell whoever keeps \(source.absoluteString)")
                left -= 1
            } else if have <= before {
                left -= 1
            }
        }
        throw failed ?? refusal(file.path, "nothing")
    }

    /// Adds what the server sends to the partial file. What the server or the network does wrong is given back as a
    /// refusal, as another attempt may help; an error of the disk is thrown.
    private func append(
        _ file: ListedFile, to partial: URL, from start: Int, progress: (Int) -> Bool
    ) async throws -> Refusal? {
        let answer: HttpAnswer
        do {
            answer = try await http.get(source.appending(path: file.path), from: start)
        } catch {
            return try brokenOff(file, error)
        }
        if isElsewhere(answer, start) { discard(partial) }  // the next attempt begins anew
        if let wrong = fault(of: answer, file, start) { return wrong }
        var have = answer.start  // 0 where the server does not know ranges
        if have == 0 { discard(partial) }
        let output = try Output(partial, name: file.path, new: false)
        var parts = answer.body.makeAsyncIterator()
        while true {
            let part: [UInt8]?
            do {
                part = try await parts.next()
            } catch {
                return try brokenOff(file, error)
            }
            guard let part else { break }
            have += part.count
            guard have <= file.size else {
                discard(partial)
                return refusal(file.path, "more than \(file.size) bytes")
            }
            try part.withUnsafeBytes(output.write)
            guard progress(have), !Task.isCancelled else { throw CancellationError() }
        }
        try Task.checkCancellation()  // which may have ended the body
        try output.finish()
        return have < file.size ? refusal(file.path, "\(have) of \(file.size) bytes") : nil
    }

    private func brokenOff(_ file: ListedFile, _ error: any Error) throws -> Refusal {
        if error is CancellationError { throw error }
        try Task.checkCancellation()
        return refusal(file.path, error is Refusal ? "\(error)" : error.localizedDescription)
    }

    /// Whether it is no part that goes on where the partial file ends: the server has no such part, or sent another.
    private func isElsewhere(_ answer: HttpAnswer, _ start: Int) -> Bool {
        switch answer.status {
        case 0, 416: true
        case 206: answer.start != 0 && answer.start != start
        default: false
        }
    }

    private func fault(of answer: HttpAnswer, _ file: ListedFile, _ start: Int) -> Refusal? {
        guard [200, 206].contains(answer.status) else { return refusal(file.path, "status \(answer.status)") }
        if let total = answer.total, total != file.size {
            return refusal(file.path, "a file of \(total) bytes, where \(Manifest.name) says \(file.size)")
        }
        guard answer.start == start || answer.start == 0 else {
            return refusal(file.path, "bytes from \(answer.start) on, where \(start) was asked for")
        }
        return nil
    }

    private func hash(_ partial: URL, _ file: ListedFile, _ progress: (Int) -> Bool) throws -> String {
        try sha256(partial, file.path) { _ in progress(file.size) && !Task.isCancelled }
    }

    private func place(_ file: ListedFile, _ partial: URL) throws {
        try makeFolder(of: file.path, below: bundle)
        try put(partial, at: file.path)
    }

    private func put(_ made: URL, at path: String) throws {
        let place = try inside(bundle, path)
        var info = stat()
        // A folder there is of an earlier manifest, and `forget` has emptied it.
        if lstat(place.path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR { discard(place) }
        guard rename(made.path, place.path) == 0 else {
            throw Refusal("\(path) cannot be put into the bundle", got: systemError(), expected: "a place for a file")
        }
    }

    private func refusal(_ name: String, _ got: String) -> Refusal {
        Refusal(
            "\(name) could not be fetched", got: "\(got) from \(source.absoluteString)", expected: "the whole file",
            todo: "begin again: the download goes on where it was broken off")
    }
}

private let mostFiles = 10_000
private let mostBytes = 1 << 50

/// Refuses manifests whose files cannot be brought here: hashes become names, sizes are reserved.
func refuseUnsafe(_ manifest: Manifest) throws {
    guard manifest.files.count <= mostFiles else {
        throw Refusal(
            "\(Manifest.name) lists too many files", got: manifest.files.count, expected: "at most \(mostFiles)")
    }
    for file in manifest.files {
        guard file.sha256.wholeMatch(of: /[0-9a-f]{64}/) != nil, file.size >= 0,
            !file.path.utf8.elementsEqual(Manifest.name.utf8)
        else {
            throw Refusal(
                "\(Manifest.name): a file cannot be brought here", got: file.path,
                expected: "a size, and a SHA-256 of 64 lower-case digits")
        }
    }
    guard manifest.bytes < mostBytes else {
        throw Refusal(
            "\(Manifest.name): the files' sizes cannot be", got: "\(manifest.bytes) bytes", expected: "below 2^50")
    }
    try refuseSharedPlaces(manifest.files.map(\.path) + [Manifest.name])
}

/// Refuses files that one file system cannot hold beside each other: one that is another's folder, and those that differ
/// in case or in the spelling of accents alone (which Swift's strings take for equal), as they are one file on some.
private func refuseSharedPlaces(_ paths: [String]) throws {
    var files: [String: String] = [:]
    func refuse(_ one: String, _ other: String) -> Refusal {
        Refusal(
            "two files of a bundle need one place", got: "\(one) and \(other)", expected: "names that differ",
            todo: "export the bundle again")
    }
    for path in paths {
        if let other = files.updateValue(path, forKey: path.lowercased()) { throw refuse(other, path) }
    }
    for path in paths {
        var folder = ""
        for name in path.lowercased().unicodeScalars.split(separator: "/").dropLast() {
            folder += (folder.isEmpty ? "" : "/") + String(name)
            if let other = files[folder] { throw refuse(other, path) }
        }
    }
}

/// Bytes that this app may still write to the volume of a folder; nil where the system does not say.
@Sendable public func freeSpace(_ folder: URL) -> Int? {
    #if canImport(Darwin)
        let key = URLResourceKey.volumeAvailableCapacityForImportantUsageKey
        return (try? folder.resourceValues(forKeys: [key]))?.volumeAvailableCapacityForImportantUsage.map(Int.init)
    #else
        let found = try? FileManager.default.attributesOfFileSystem(forPath: folder.path)
        return (found?[.systemFreeSize] as? NSNumber)?.intValue
    #endif
}
