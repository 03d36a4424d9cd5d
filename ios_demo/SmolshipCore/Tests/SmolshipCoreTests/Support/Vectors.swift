import Foundation
import XCTest

@testable import SmolshipCore

/// The files of tests/vectors/apps, which Python writes.
enum Vectors {
    static let folder: URL = {
        var place = URL(filePath: #filePath)
        while place.path != "/" {
            place.deleteLastPathComponent()
            let folder = place.appending(path: "tests/vectors/apps")
            if FileManager.default.fileExists(atPath: folder.path) { return folder }
        }
        fatalError("no tests/vectors/apps above \(#filePath)")
    }()

    static func json(_ name: String) throws -> Json {
        try Json.parse([UInt8](Data(contentsOf: folder.appending(path: name + ".json"))))
    }

    /// The cases of a file that is a list of them; at least as many as `least`, so that a test cannot pass by an empty file.
    static func cases(_ name: String, least: Int) throws -> [Json] {
        let found = try XCTUnwrap(try json(name).arrayValue)
        XCTAssertGreaterThanOrEqual(found.count, least, name)
        return found
    }
}

extension Json {
    var ints: [Int] { arrayValue?.compactMap(\.intValue) ?? [] }
    var text: String { stringValue ?? "" }
    /// A number, or one of "NaN", "Infinity" and "-Infinity".
    var float: Float { numberValue.map(Float.init) ?? Float(text.replacing("Infinity", with: "inf")) ?? .nan }
}

/// What a body throws; nil where it does not.
func refusal(_ body: () throws -> Void) -> Refusal? {
    do {
        try body()
        return nil
    } catch {
        return error as? Refusal ?? Refusal("another error", got: error)
    }
}

func refusalLater(_ body: () async throws -> Void) async -> Refusal? {
    do {
        try await body()
        return nil
    } catch {
        return error as? Refusal ?? Refusal("another error", got: error)
    }
}

/// An empty folder, removed when the test ends.
func temporaryFolder(_ test: XCTestCase) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appending(path: "smolship-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    test.addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
    return folder
}

func sameText(_ left: String, _ right: String, _ message: String, line: UInt = #line) {
    XCTAssertTrue(
        left.utf8.elementsEqual(right.utf8), "\(message): \(left.debugDescription), not \(right.debugDescription)",
        line: line)
}
