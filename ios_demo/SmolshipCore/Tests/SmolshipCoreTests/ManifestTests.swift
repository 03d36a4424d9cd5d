import XCTest

@testable import SmolshipCore

final class ManifestTests: XCTestCase {
    func testVectors() throws {
        for one in try Vectors.cases("manifest", least: 100) {
            let name = one["name"]!.text
            let folder = try temporaryFolder(self)
            try Data(raw(one)).write(to: folder.appending(path: Manifest.name))
            var bundle: ModelBundle?
            let refused = refusal { bundle = try ModelBundle(folder) }
            XCTAssertEqual(
                refused == nil, one["accepted"] == .bool(true), "\(name): \(refused?.description ?? "accepted")")
            if let bundle, let read = one["read"] {
                check(bundle.manifest, read, name)
                let refused = refusal { try refuseUnsafe(bundle.manifest) }
                XCTAssertEqual(refused == nil, one["brought"] == .bool(true), "\(name): \(refused?.what ?? "brought")")
            }
            if let bundle, let files = one["files"]?.objectValue {
                for (path, text) in files {
                    let url = folder.appending(path: path)
                    try FileManager.default.createDirectory(
                        at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
                    try Data(text.text.utf8).write(to: url)
                }
                let below = one["below"]!.text
                let problems = try checkFiles(folder, bundle.manifest, below: below)
                let found = JsonObject(problems.map { ($0.path, .string($0.kind.rawValue)) })
                XCTAssertEqual(.object(found), one["problems"], name)
                XCTAssertEqual(refusal { try bundle.verify(below: below) } == nil, problems.isEmpty, name)
            }
        }
    }

    private func raw(_ one: Json) throws -> [UInt8] {
        if let hex = one["hex"]?.stringValue {
            return stride(from: 0, to: hex.count, by: 2).map { UInt8(hex.dropFirst($0).prefix(2), radix: 16)! }
        }
        return try one["manifest"]!.stringValue.map { Array($0.utf8) } ?? one["manifest"]!.bytes()
    }

    private func check(_ manifest: Manifest, _ read: Json, _ name: String) {
        let facts = manifest.generation
        XCTAssertEqual(manifest.model.vocab, read["vocab"]!.intValue, name)
        XCTAssertEqual(manifest.context, read["context"]!.intValue, name)
        XCTAssertEqual(facts.ends.map(\.id), read["end_ids"]!.ints, name)
        XCTAssertEqual(facts.bos, read["bos"]!.intValue, name)
        XCTAssertEqual(facts.addsBos, read["adds_bos"]!.boolValue, name)
        XCTAssertEqual(facts.template, read["template"]!.stringValue, name)
        let special = JsonObject(facts.specialTokens.map { ($0.key, .string($0.value)) })
        XCTAssertEqual(.object(special), read["special_tokens"], name)
        let sampling = facts.sampling
        let how: JsonObject = [
            "temperature": .float(sampling.temperature), "top_p": .float(sampling.topP), "top_k": .int(sampling.topK),
            "min_p": .float(sampling.minP), "repetition_penalty": .float(sampling.repetitionPenalty),
        ]
        XCTAssertEqual(.object(how), read["sampling"], name)
        let targets = JsonObject(
            manifest.targets.map { entry in
                let found: JsonObject = [
                    "engine": .string(entry.engine), "path": .string("\(entry.folder)/\(entry.file)"),
                    "digest": .string(manifest.artifactDigest(entry)),
                ]
                return (entry.name, .object(found))
            })
        XCTAssertTrue(.object(targets) == read["targets"]!, "\(name): targets are \(pythonJson(.object(targets)))")
        if let bytes = read["bytes"] { XCTAssertEqual(manifest.bytes, bytes.intValue, name) }
    }

    func testNestedTooDeep() {
        let deep = [UInt8](repeating: UInt8(ascii: "["), count: 100_000)
        XCTAssertNotNil(refusal { _ = try Manifest(deep) })
    }

    func testATruncatedManifest() throws {
        let raw = try manifest(of: ["a": [1]])
        XCTAssertNil(refusal { _ = try Manifest(raw) })
        for count in stride(from: 0, to: raw.count, by: 7) {
            XCTAssertNotNil(refusal { _ = try Manifest(raw.prefix(count)) }, "\(count) bytes")
        }
    }

    func testSizesBeyondWhatANumberHolds() throws {
        let raw = String(decoding: try manifest(of: ["a": [1], "b": [2]]), as: UTF8.self)
        let huge = try Manifest(raw.replacing("\"size\": 1", with: "\"size\": \(Int.max)").utf8)
        XCTAssertEqual(huge.bytes, Int.max)
        XCTAssertNotNil(refusal { try refuseUnsafe(huge) })
        let negative = try Manifest(raw.replacing("\"size\": 1", with: "\"size\": -1").utf8)
        XCTAssertNotNil(refusal { try refuseUnsafe(negative) })
    }
}

final class FileTests: XCTestCase {
    func testLinksThatLeaveTheBundle() throws {
        let (outer, root) = (try temporaryFolder(self), try temporaryFolder(self))
        try write(["x/a": [1], "b": [2]], into: root)
        try Data([1]).write(to: outer.appending(path: "a"))
        XCTAssertNil(refusal { _ = try ModelBundle(root) })
        let folder = root.appending(path: "x")
        try FileManager.default.removeItem(at: folder)
        try FileManager.default.createSymbolicLink(at: folder, withDestinationURL: outer)
        let found = refusal { _ = try ModelBundle(root) }
        XCTAssertEqual(found?.what, "a path leaves its folder through a link")
    }

    func testALinkInsideIsAFile() throws {
        let root = try temporaryFolder(self)
        try write(["a": [1], "b": [1]], into: root)
        try FileManager.default.removeItem(at: root.appending(path: "b"))
        try FileManager.default.createSymbolicLink(
            at: root.appending(path: "b"), withDestinationURL: root.appending(path: "a"))
        XCTAssertNil(refusal { try ModelBundle(root).verify() })
    }

    func testFoldersAndPipesInPlaceOfFiles() throws {
        let root = try temporaryFolder(self)
        try write(["a": [1], "b": [1]], into: root)
        let bundle = try ModelBundle(root)
        for name in ["a", "b"] { try FileManager.default.removeItem(at: root.appending(path: name)) }
        try FileManager.default.createDirectory(at: root.appending(path: "a"), withIntermediateDirectories: false)
        XCTAssertEqual(mkfifo(root.appending(path: "b").path, 0o600), 0)
        let problems = try checkFiles(root, bundle.manifest)
        XCTAssertEqual(problems.map(\.kind), [.unreadable, .unreadable])
        XCTAssertNotNil(refusal { _ = try bundle.read("b") })
    }

    func testACheckIsBrokenOff() throws {
        let root = try temporaryFolder(self)
        try write(["a": [1], "b": [1]], into: root)
        let bundle = try ModelBundle(root)
        var told: [Int] = []
        XCTAssertThrowsError(
            try bundle.verify { _, done, total in
                told.append(done)
                XCTAssertEqual(total, 2)
                return false
            }
        ) { XCTAssertTrue($0 is CancellationError) }
        XCTAssertEqual(told, [1])
    }

    func testReadingAFileHashesIt() throws {
        let root = try temporaryFolder(self)
        try write(["a": [1, 2]], into: root)
        let bundle = try ModelBundle(root)
        XCTAssertEqual(try bundle.read("a"), [1, 2])
        try Data([1, 3]).write(to: root.appending(path: "a"))
        XCTAssertEqual(refusal { _ = try bundle.read("a") }?.what, "the bundle was altered")
        XCTAssertNotNil(refusal { _ = try bundle.read("c") })
        XCTAssertNotNil(refusal { _ = try ModelBundle(root.appending(path: "nowhere")) })
    }
}

final class Sha256Tests: XCTestCase {
    /// The examples of FIPS 180-4's tests.
    func testKnownHashes() {
        for (text, hash) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
            (
                String(repeating: "a", count: 100_000),
                "6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee"
            ),
        ] {
            XCTAssertEqual(Sha256.hex(text.utf8), hash)
            XCTAssertEqual(portable(Array(text.utf8), [text.utf8.count]), hash)
        }
    }

    /// However the bytes come, and at every length around a block's.
    func testPieces() {
        let all = bytes(300)
        for count in 0...300 {
            let whole = Array(all.prefix(count))
            let expected = Sha256.hex(whole)
            for size in [1, 3, 55, 56, 63, 64, 65, 130] where count % 7 == 0 || size == 64 {
                XCTAssertEqual(portable(whole, [Int](repeating: size, count: 300)), expected, "\(count) by \(size)")
            }
        }
    }

    private func portable(_ bytes: [UInt8], _ sizes: [Int]) -> String {
        var (hash, at) = (PortableSha256(), 0)
        for size in sizes where at < bytes.count {
            Array(bytes[at..<min(at + size, bytes.count)]).withUnsafeBytes { hash.update($0) }
            at += size
        }
        return hash.hex()
    }
}
