import XCTest

@testable import SmolshipCore

final class StoreTests: XCTestCase {
    private let files = ["a.bin": bytes(3000), "x/y/b": [1, 2, 3], "empty": []]

    private func made(free: Int? = nil) throws -> (Store, source: URL) {
        let (root, source) = (try temporaryFolder(self), try temporaryFolder(self))
        try write(files, into: source)
        return (try Store(root, freeBytes: { _ in free }), source)
    }

    func testABundleIsCopied() throws {
        let (store, source) = try made()
        try Data([1]).write(to: source.appending(path: "unlisted"))
        var last = 0
        let bundle = try store.copy(from: source, as: "tiny") { _, done, total in
            XCTAssertEqual(total, 3003)
            last = done
            return true
        }
        XCTAssertEqual(last, 3003)
        XCTAssertNil(refusal { try bundle.verify() })
        XCTAssertEqual(try contents(bundle.root).filter { $0.key != Manifest.name }, files)
        XCTAssertEqual(try store.list().map(\.name), ["tiny"])
        XCTAssertEqual(try store.open("tiny").digest, try ModelBundle(source).digest)
    }

    func testNothingIsLeftOfWhatGoesWrong() throws {
        let faults: [(String, (URL) throws -> Void)] = [
            ("altered", { try Data([1, 2, 4]).write(to: $0.appending(path: "x/y/b")) }),
            ("shorter", { try Data([1, 2]).write(to: $0.appending(path: "x/y/b")) }),
            ("missing", { try FileManager.default.removeItem(at: $0.appending(path: "empty")) }),
            ("no manifest", { try FileManager.default.removeItem(at: $0.appending(path: Manifest.name)) }),
            (
                "a link out",
                {
                    try FileManager.default.removeItem(at: $0.appending(path: "a.bin"))
                    try FileManager.default.createSymbolicLink(
                        at: $0.appending(path: "a.bin"), withDestinationURL: URL(filePath: "/etc/hosts"))
                }
            ),
        ]
        for (name, fault) in faults {
            let (store, source) = try made()
            try fault(source)
            XCTAssertNotNil(refusal { _ = try store.copy(from: source, as: "tiny") }, name)
            XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: store.root.path), [], name)
        }
    }

    func testBrokenOff() throws {
        let (store, source) = try made()
        XCTAssertThrowsError(try store.copy(from: source, as: "tiny") { _, _, _ in false }) {
            XCTAssertTrue($0 is CancellationError)
        }
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: store.root.path), [])
    }

    func testTooLittleStorage() throws {
        let (store, source) = try made(free: (64 << 20) + 3002)
        let found = refusal { _ = try store.copy(from: source, as: "tiny") }
        XCTAssertEqual(found?.what, "too little storage for the bundle")
        XCTAssertNotNil(found?.todo)
        let (other, same) = try made(free: (64 << 20) + 3003)
        XCTAssertNil(refusal { _ = try other.copy(from: same, as: "tiny") })
    }

    func testNames() throws {
        let (store, source) = try made()
        for name in ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a\nb", String(repeating: "é", count: 128)] {
            XCTAssertNotNil(refusal { _ = try store.copy(from: source, as: name) }, name)
            XCTAssertNotNil(refusal { _ = try store.open(name) }, name)
            XCTAssertNotNil(refusal { try store.remove(name) }, name)
        }
        XCTAssertNil(refusal { _ = try store.copy(from: source, as: "Ein Modell, 日本") })
        XCTAssertEqual(try store.list().map(\.name), ["Ein Modell, 日本"])
    }

    func testOneIsReplacedWhenAsked() throws {
        let (store, source) = try made()
        _ = try store.copy(from: source, as: "tiny")
        XCTAssertEqual(
            refusal { _ = try store.copy(from: source, as: "tiny") }?.what, "a bundle of that name is here already")
        let other = try temporaryFolder(self)
        try write(["c": [9]], into: other)
        XCTAssertEqual(try store.copy(from: other, as: "tiny", replace: true).manifest.files.map(\.path), ["c"])
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: store.root.path), ["tiny"])
        XCTAssertNotNil(refusal { _ = try store.copy(from: store.root, as: "tiny", replace: true) })
        XCTAssertEqual(try store.open("tiny").manifest.files.map(\.path), ["c"])
    }

    func testAlteredBundlesAreListedWithWhatIsWrong() throws {
        let (store, source) = try made()
        _ = try store.copy(from: source, as: "good")
        let bad = store.root.appending(path: "bad")
        try FileManager.default.createDirectory(at: bad, withIntermediateDirectories: false)
        try Data("<html>".utf8).write(to: bad.appending(path: Manifest.name))
        try Data([1]).write(to: store.root.appending(path: "a file"))
        let listed = try store.list()
        XCTAssertEqual(listed.map(\.name), ["bad", "good"])
        guard case .failure(let why) = listed[0].bundle else { return XCTFail("a web page is a bundle") }
        XCTAssertEqual(why.got, "a web page")
        try store.remove("bad")
        XCTAssertEqual(try store.list().map(\.name), ["good"])
        XCTAssertNotNil(refusal { try store.remove("bad") })
    }

    /// An import that was ended by the system leaves a folder; one that is under way in this process has one, too.
    func testLeftoversOfAnEndedProcess() throws {
        let (store, source) = try made()
        let left = store.root.appending(path: ".import-\(UUID().uuidString)")
        try write(files, into: left)
        _ = try store.copy(from: source, as: "tiny") { _, _, _ in
            (try? Store(store.root, freeBytes: { _ in nil })) != nil
        }
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: store.root.path), ["tiny"])
    }

    func testFreeSpaceIsKnown() throws {
        XCTAssertGreaterThan(try XCTUnwrap(freeSpace(try temporaryFolder(self))), 0)
    }
}
