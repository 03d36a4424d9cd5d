import Foundation

/// The tests of what runs of the app without Apple's frameworks. Each is a function that throws.
@main
struct AppTests {
    @MainActor static func main() async {
        let all = [engineTests, tokenTests, savedTests, chatTests, benchTests, downloadTests].flatMap { $0 }
        var failed = 0
        for (name, test) in all {
            do {
                try await test()
            } catch {
                failed += 1
                print("FAILED \(name): \(error)")
            }
        }
        try? FileManager.default.removeItem(at: URL.cachesDirectory.deletingLastPathComponent())
        print("AppTests: \(all.count - failed) of \(all.count) passed")
        exit(failed == 0 ? 0 : 1)
    }
}

struct Failure: Error, CustomStringConvertible {
    let description: String
}

func expect<Value: Equatable>(_ got: Value, _ expected: Value, line: Int = #line) throws {
    guard got == expected else { throw Failure(description: "line \(line): \(got) where \(expected) was expected") }
}

func expect(_ good: Bool, _ what: String, line: Int = #line) throws {
    guard good else { throw Failure(description: "line \(line): \(what)") }
}

/// Expects `body` to throw an error whose description contains `words`.
@MainActor func expectRefusal(_ words: String, line: Int = #line, _ body: @MainActor () async throws -> Void)
    async throws
{
    do {
        try await body()
    } catch {
        return try expect("\(error)".contains(words), "\(error), where \(words) was expected", line: line)
    }
    throw Failure(description: "line \(line): nothing was refused, where \(words) was expected")
}

/// Waits for what other tasks bring about.
@MainActor
func wait(_ what: String, line: Int = #line, until: () -> Bool) async throws {
    for _ in 0..<2000 {
        if until() { return }
        try await Task.sleep(for: .milliseconds(5))
    }
    throw Failure(description: "line \(line): no \(what) after 10 s")
}
