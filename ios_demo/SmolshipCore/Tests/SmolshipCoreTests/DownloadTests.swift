import XCTest

@testable import SmolshipCore

final class DownloadTests: XCTestCase {
    private let address = URL(string: "http://server/bundle")!
    private let files = ["a.bin": bytes(1000), "x/b.bin": bytes(350, seed: 2), "empty": []]

    private func store(free: Int = .max) throws -> (Store, URL) {
        let root = try temporaryFolder(self).appending(path: "bundles")
        return (try Store(root, freeBytes: { _ in free }), root)
    }

    private func download(_ store: Store, _ server: Server, progress: OnProgress = { _, _, _ in true }) async throws
        -> ModelBundle
    {
        try await store.download(from: address, as: "tiny", http: server, progress: progress)
    }

    private func check(_ bundle: ModelBundle, _ files: [String: [UInt8]]) throws {
        XCTAssertNil(refusal { try bundle.verify() })
        XCTAssertEqual(try contents(bundle.root).filter { $0.key != Manifest.name }, files)
    }

    func testAllFilesCome() async throws {
        let (store, root) = try store()
        let server = try Server(files)
        var told: [Int] = []
        let bundle = try await download(store, server) { _, done, total in
            XCTAssertEqual(total, 1350)
            told.append(done)
            return true
        }
        try check(bundle, files)
        XCTAssertEqual(told, told.sorted())
        XCTAssertEqual(told.last, 1350)
        XCTAssertEqual(try store.list().map(\.name), ["tiny"])
        XCTAssertEqual(try store.unfinishedBytes(), 0)
        XCTAssertEqual(bundle.root.deletingLastPathComponent().path, root.path)
        let taken = await refusalLater { _ = try await self.download(store, server) }
        XCTAssertEqual(taken?.what, "a bundle of that name is here already")
    }

    func testItGoesOnWhereItWasBrokenOff() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.breaksOff(after: 400), .breaksOff(after: 300)])
        try check(try await download(store, server), files)
        let asked = await server.takeAsked()
        XCTAssertEqual(asked, [Manifest.name, "a.bin", "a.bin@400", "a.bin@700", "empty", "x/b.bin"])
    }

    func testItGoesOnInAnotherProcess() async throws {
        let (store, root) = try store()
        let server = try Server(files)
        await server.set("x/b.bin", [.breaksOff(after: 200), .unreachable, .status(503), .ends(after: 0)])
        let found = await refusalLater { _ = try await self.download(store, server) }
        XCTAssertEqual(found?.what, "x/b.bin could not be fetched")
        XCTAssertTrue(found?.todo?.contains("goes on") ?? false)
        XCTAssertEqual(try store.list().map(\.name), [])
        XCTAssertEqual(
            try store.unfinishedBytes(),
            1200 + (try contents(root).first { $0.key.hasSuffix(Manifest.name) }!.value.count))
        _ = await server.takeAsked()
        let again = try Store(root, freeBytes: { _ in .max })
        try check(try await download(again, server), files)
        let asked = await server.takeAsked()
        XCTAssertEqual(asked, [Manifest.name, "x/b.bin@200"])
    }

    func testABodyThatEndsEarlyWithoutAnError() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.ends(after: 999)])
        try check(try await download(store, server), files)
        let asked = await server.takeAsked()
        XCTAssertTrue(asked.contains("a.bin@999"))
    }

    func testAServerThatKnowsNoRanges() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.breaksOff(after: 400), .ignoresRange])
        try check(try await download(store, server), files)
    }

    func testARangeThatWasNotAskedFor() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.breaksOff(after: 400), .wrongStart(300)])
        try check(try await download(store, server), files)
        let asked = await server.takeAsked()
        XCTAssertEqual(asked.filter { $0.hasPrefix("a.bin") }, ["a.bin", "a.bin@400", "a.bin"])
    }

    func testAFileThatComesAlteredIsFetchedAgain() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.breaksOff(after: 400), .altered])
        try check(try await download(store, server), files)
        let asked = await server.takeAsked()
        XCTAssertEqual(asked.filter { $0.hasPrefix("a.bin") }, ["a.bin", "a.bin@400", "a.bin"])
    }

    func testAFileThatIsAlteredOnTheServer() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.altered, .altered, .altered, .altered])
        let found = await refusalLater { _ = try await self.download(store, server) }
        XCTAssertEqual(found?.what, "a.bin comes altered")
        let asked = await server.takeAsked()
        XCTAssertEqual(asked.filter { $0 == "a.bin" }.count, 3)
        XCTAssertEqual(try store.list().map(\.name), [])
    }

    func testAFileThatIsLongerThanListed() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        await server.set("a.bin", [.longer, .longer, .longer])
        let found = await refusalLater { _ = try await self.download(store, server) }
        XCTAssertEqual(found?.what, "a.bin could not be fetched")
        await server.set("a.bin", [.total(2000), .total(2000), .total(2000)])
        let other = await refusalLater { _ = try await self.download(store, server) }
        XCTAssertTrue(other?.got?.contains("a file of 2000 bytes") ?? false)
    }

    func testABundleThatIsAlteredBetween() async throws {
        let (store, root) = try store()
        let server = try Server(files)
        await server.set("x/b.bin", [.breaksOff(after: 200), .unreachable, .unreachable, .unreachable])
        _ = await refusalLater { _ = try await self.download(store, server) }
        let new = ["a.bin": bytes(1000, seed: 9), "x/b.bin": files["x/b.bin"]!, "c": [1]]
        try await server.replace(new)
        _ = await server.takeAsked()
        try check(try await download(store, server), new)
        let asked = await server.takeAsked()
        XCTAssertEqual(asked, [Manifest.name, "a.bin", "c", "x/b.bin@200"])
        XCTAssertEqual(try contents(root).keys.filter { $0.contains("empty") }, [])
    }

    func testNoBundle() async throws {
        for fault in [Server.Fault.status(404), .status(500), .unreachable, .ends(after: 30), .altered] {
            let (store, _) = try store()
            let server = try Server(files)
            await server.set(Manifest.name, [fault])
            let found = await refusalLater { _ = try await self.download(store, server) }
            XCTAssertNotNil(found, "\(fault)")
            XCTAssertEqual(try store.list().map(\.name), [])
        }
    }

    func testTooLittleStorage() async throws {
        let (store, _) = try store(free: (64 << 20) + 1000)
        let server = try Server(files)
        let found = await refusalLater { _ = try await self.download(store, server) }
        XCTAssertEqual(found?.what, "too little storage for the bundle")
        let asked = await server.takeAsked()
        XCTAssertEqual(asked, [Manifest.name])
    }

    func testItIsCancelled() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        do {
            _ = try await download(store, server) { _, done, _ in done < 500 }
            XCTFail("not cancelled")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
        XCTAssertGreaterThan(try store.unfinishedBytes(), 400)
        _ = await server.takeAsked()
        try check(try await download(store, server), files)
        let asked = await server.takeAsked()
        XCTAssertEqual(asked[1], "a.bin@500")
        store.removeUnfinished()
        XCTAssertEqual(try store.unfinishedBytes(), 0)
    }

    func testATaskIsCancelled() async throws {
        let (store, _) = try store()
        let server = try Server(files)
        let address = address
        let task = Task {
            try await store.download(from: address, as: "tiny", http: server) { _, _, _ in
                withUnsafeCurrentTask { $0?.cancel() }
                return true
            }
        }
        do {
            _ = try await task.value
            XCTFail("not cancelled")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
    }

    func testManifestsThatCannotBeBroughtHere() async throws {
        let raw = String(decoding: try manifest(of: ["a": [1]]), as: UTF8.self)
        for (old, new) in [
            ("\"size\": 1", "\"size\": -1"), ("\"sha256\": \"", "\"sha256\": \"../../"), ("\"a\":", "\"../a\":"),
            ("\"a\":", "\"manifest.json\":"), ("\"size\": 1", "\"size\": \(Int.max)"),
            ("\"size\": 1", "\"size\": \(Int.max - 1)"), ("\"size\": 1", "\"size\": \(1 << 50)"),
        ] {
            let (store, root) = try store()
            let server = try Server(["a": [1]])
            let altered = raw.replacing(old, with: new)
            XCTAssertNotEqual(altered, raw)
            await server.put(Manifest.name, Array(altered.utf8))
            let found = await refusalLater { _ = try await self.download(store, server) }
            XCTAssertNotNil(found, new)
            XCTAssertEqual(try contents(root), [:], new)
        }
    }

    func testTwoFilesOfOnePlace() async throws {
        for (one, other) in [
            ("a", "a/b"), ("x/A", "x/a"), ("\u{E9}", "e\u{301}"), ("Manifest.json", "z"), ("A", "a/b/c"),
            ("manifest.json/x", "z"),
        ] {
            let (store, root) = try store()
            let server = try Server([:])
            let file: JsonObject = ["size": .int(1), "sha256": .string(Sha256.hex([1]))]
            var json = try Vectors.json("manifest").arrayValue![0]["manifest"]!.objectValue!
            json["targets"] = .object([:])
            json["files"] = .object(JsonObject([one, other].map { ($0, .object(file)) }))
            await server.put(Manifest.name, try Json.object(json).bytes())
            let found = await refusalLater { _ = try await self.download(store, server) }
            XCTAssertEqual(found?.what, "two files of a bundle need one place", "\(one) and \(other)")
            XCTAssertEqual(try contents(root), [:])
        }
    }

    func testAFileWhereAnEarlierManifestHadAFolder() async throws {
        let (store, _) = try store()
        let bundles: [[String: [UInt8]]] = [["x/y": [1]], ["x": [2]], ["x/y/z": [3]]].map {
            $0.merging(["z": [9]]) { $1 }
        }
        let server = try Server([:])
        for files in bundles {
            try await server.replace(files)
            await server.set("z", [.status(500), .status(500), .status(500)])
            let found = await refusalLater { _ = try await self.download(store, server) }
            XCTAssertEqual(found?.what, "z could not be fetched")
        }
        try check(try await download(store, server), bundles.last!)
    }

    func testContentRange() {
        XCTAssertEqual(contentRange("bytes 200-999/1000")?.start, 200)
        XCTAssertEqual(contentRange("bytes 200-999/1000")?.total, 1000)
        XCTAssertNil(contentRange("bytes 200-999/*")?.total)
        for header in ["", "bytes */1000", "bytes 1-2", "200-999/1000", "bytes -1-2/3"] {
            XCTAssertNil(contentRange(header), header)
        }
    }
}

extension Server {
    func put(_ path: String, _ bytes: [UInt8]) { files[path] = bytes }
}
