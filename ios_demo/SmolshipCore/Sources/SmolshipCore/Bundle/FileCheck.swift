import Foundation

/// What is wrong with a file of a bundle.
public struct FileProblem: Equatable, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable {
        case size, sha256, missing, unlisted, unreadable
    }

    public let path: String
    public let kind: Kind
    /// In one line.
    public let description: String
}

/// What is wrong with a bundle's files below a sub-folder: those that are missing, altered or unlisted. Throws
/// CancellationError where `progress` returns false.
public func checkFiles(
    _ root: URL, _ manifest: Manifest, below: String = "", progress: OnProgress = { _, _, _ in true }
) throws -> [FileProblem] {
    let listed = manifest.files.filter { $0.path.utf8.starts(with: below.utf8) }
    let total = listed.reduce(0) { $0 &+ max($1.size, 0) }
    var done = 0
    var problems: [FileProblem] = []
    func problem(_ path: String, _ kind: FileProblem.Kind, _ words: String) {
        problems.append(FileProblem(path: path, kind: kind, description: "\(path): \(words)"))
    }
    for file in listed {
        do {
            let url = try inside(root, file.path)
            let size = try regularFile(url, file.path)
            if size != file.size {
                problem(file.path, .size, "\(size) bytes, the manifest says \(file.size)")
                continue
            }
            let hash = try sha256(url, file.path) { count in
                done += count
                return progress("checking \(file.path)", done, total)
            }
            if hash != file.sha256 { problem(file.path, .sha256, "its SHA-256 is not the manifest's") }
        } catch let refusal as Refusal {
            let kind = refusal.what == "no \(file.path)" ? FileProblem.Kind.missing : .unreadable
            problem(file.path, kind, refusal.description.replacing("\n", with: ";"))
        }
    }
    let known = Set(listed.map { ExactString($0.path) } + [ExactString(Manifest.name)])
    for name in try filesBelow(root).sorted()
    where name.utf8.starts(with: below.utf8) && !known.contains(ExactString(name)) {
        problem(name, .unlisted, "not in the manifest")
    }
    return problems
}

/// Paths of all that is no folder, links included, relative to `root`.
func filesBelow(_ root: URL) throws -> [String] {
    var found: [String] = []
    func walk(_ folder: URL, _ prefix: String) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            let url = folder.appending(path: name)
            var info = stat()
            guard lstat(url.path, &info) == 0 else { continue }  // it has gone meanwhile
            if info.st_mode & S_IFMT == S_IFDIR {
                try walk(url, prefix + name + "/")
            } else {
                found.append(prefix + name)
            }
        }
    }
    try walk(root, "")
    return found
}
