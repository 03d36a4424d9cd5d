#if os(Linux)
    import XCTest

    @testable import SmolshipCore

    /// Disks that are really full: file systems in memory, which root alone may mount.
    final class FullDiskTests: XCTestCase {
        private let files = ["a.bin": bytes(40_000), "b.bin": bytes(40_000, seed: 2)]

        /// A store on a disk that holds a file and a half, where the system does not say how much is free.
        private func store() throws -> Store {
            let folder = try temporaryFolder(self)
            XCTAssertEqual(mount("none", folder.path, "tmpfs", 0, "size=64k"), 0, "run as root: \(systemError())")
            addTeardownBlock { umount(folder.path) }
            return try Store(folder, freeBytes: { _ in nil })
        }

        private func check(_ found: Refusal?) {
            XCTAssertEqual(found?.what, "b.bin could not be written")
            XCTAssertEqual(found?.got, "No space left on device")
            XCTAssertTrue(found?.todo?.hasPrefix("remove a bundle") ?? false)
        }

        func testACopyLeavesNothing() throws {
            let (store, source) = (try store(), try temporaryFolder(self))
            try write(files, into: source)
            check(refusal { _ = try store.copy(from: source, as: "tiny") })
            XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: store.root.path), [])
        }

        func testADownloadKeepsWhatCame() async throws {
            let store = try store()
            let server = try Server(files, piece: 5000)
            let address = URL(string: "http://server/bundle")!
            check(await refusalLater { _ = try await store.download(from: address, as: "tiny", http: server) })
            XCTAssertEqual(try store.list().map(\.name), [])
            XCTAssertGreaterThan(try store.unfinishedBytes(), 40_000)
            let asked = await server.takeAsked()
            XCTAssertEqual(asked, [Manifest.name, "a.bin", "b.bin"])  // trying again does not help
        }

        func testAResultLeavesTheOneBefore() throws {
            let store = try store()
            try Data(bytes(60_000)).write(to: store.root.appending(path: "something"))
            let one = try XCTUnwrap(Vectors.cases("plan", least: 100).first { $0["name"]?.text == "an answer" })
            let machine = Machine(artifact: "", versions: [:], system: "")
            let result = try Executor(Plan(one["plan"]!.text.utf8), machine: machine).run { Toy(one["engine"]!) }
            let place = store.root.appending(path: "result.json")
            try Data([1]).write(to: place)
            XCTAssertEqual(refusal { try result.write(to: place) }?.what, "the result could not be written")
            XCTAssertEqual(try contents(store.root).keys.sorted(), ["result.json", "something"])
            XCTAssertEqual(try Data(contentsOf: place), Data([1]))
        }
    }
#endif
