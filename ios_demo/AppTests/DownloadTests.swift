import Foundation
import SmolshipCore

/// Against the server of server.py, whose address is the environment's SMOLSHIP_SERVER. It serves Documents/../served.
@MainActor let downloadTests: [(String, @MainActor () async throws -> Void)] = [
    ("a bundle is downloaded, and goes on where it was broken off", resumed),
    ("what a server cannot give is said", serverRefusals),
    ("servers may send on, but not to what is less safe", redirects),
]

private func server() throws -> URL {
    guard let text = ProcessInfo.processInfo.environment["SMOLSHIP_SERVER"], let url = URL(string: text) else {
        throw Failure(description: "no SMOLSHIP_SERVER")
    }
    return url
}

@MainActor private func resumed() async throws {
    let served = URL(filePath: ProcessInfo.processInfo.environment["SMOLSHIP_SERVED"] ?? "/none")
    let bundle = try toyBundle("served")
    try? FileManager.default.removeItem(at: served.appending(path: "toy"))
    try FileManager.default.copyItem(at: bundle.root, to: served.appending(path: "toy"))
    let store = try Store(URL.cachesDirectory.appending(path: "store"))
    // "broken" sends a part of the largest file, once, and closes; the second attempt asks for the rest.
    for (path, name) in [("toy", "whole"), ("broken/toy", "resumed"), ("moved/toy", "redirected")] {
        let http = URLSessionHttp()
        defer { http.close() }
        nonisolated(unsafe) var percents: [Int] = []
        let made = try await store.download(from: server().appending(path: path), as: name, http: http) {
            @Sendable _, done, total in
            percents.append(100 * done / total)
            return true
        }
        try made.verify()
        try expect(made.digest, bundle.digest)
        try expect(percents, percents.sorted())
        try expect(percents.last, 100)
    }
    let log = try String(contentsOf: served.appending(path: "log"), encoding: .utf8)
    for folder in ["broken", "elsewhere"] {
        let asked = "\(folder)/toy/coreml/model.mlpackage/Data/weights bytes=1000-"
        try expect(log.contains(asked), "the rest was asked for: \(log)")
    }
}

@MainActor private func redirects() async throws {
    for (old, new, follows) in [
        ("https://a.org/x", "https://b.org/x", true), ("http://a/x", "https://b.org/x", true),
        ("http://a/x", "http://b/x", true), ("https://a.org/x", "http://a.org/x", false),
        ("https://a.org/x", "http://192.168.1.1/x", false), ("http://a/x", "ftp://a/x", false),
        ("http://a/x", "file:///etc/passwd", false), ("https://a.org/x", "/x", false),
    ] {
        try expect(URLSessionHttp.follows(from: URL(string: old), to: URL(string: new)), follows)
    }
    let store = try Store(URL.cachesDirectory.appending(path: "store"))
    let http = URLSessionHttp()
    defer { http.close() }
    try await expectRefusal("302") {
        _ = try await store.download(from: server().appending(path: "away/toy"), as: "x", http: http)
    }
}

@MainActor private func serverRefusals() async throws {
    let store = try Store(URL.cachesDirectory.appending(path: "store"))
    let http = URLSessionHttp()
    defer { http.close() }
    try await expectRefusal("404") {
        _ = try await store.download(from: server().appending(path: "none"), as: "x", http: http)
    }
    try await expectRefusal("http://") {
        _ = try await store.download(from: URL(filePath: "/toy"), as: "x", http: http)
    }
    let closed = URL(string: "http://127.0.0.1:1/toy")!
    do {
        _ = try await store.download(from: closed, as: "x", http: http)
        throw Failure(description: "a port where nobody listens gave a bundle")
    } catch let error where !(error is Failure) {}
    try expect(try store.list().map(\.name), ["redirected", "resumed", "whole"])
    // Cancelled while it waits for a server that says nothing.
    let address = try server().appending(path: "silent/toy")
    let task = Task { _ = try await store.download(from: address, as: "x", http: URLSessionHttp()) }
    try await Task.sleep(for: .milliseconds(200))
    task.cancel()
    let start = ContinuousClock.now
    _ = await task.result
    try expect(start.duration(to: .now) < .seconds(5), "it ends when it is cancelled")
}
