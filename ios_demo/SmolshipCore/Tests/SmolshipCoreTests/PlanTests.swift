import XCTest

@testable import SmolshipCore

final class PlanTests: XCTestCase {
    /// Plans that are read or refused, executed or refused, as Python does it. Where SMOLSHIP_RESULTS names a folder, the
    /// results are written there, by the case's number, for Python to judge.
    func testVectors() throws {
        let folder = ProcessInfo.processInfo.environment["SMOLSHIP_RESULTS"].map { URL(filePath: $0) }
        for (i, one) in try Vectors.cases("plan", least: 100).enumerated() {
            let name = one["name"]!.text
            var plan: Plan?
            let refused = refusal { plan = try Plan(one["plan"]!.text.utf8) }
            XCTAssertEqual(
                refused == nil, one["accepted"] == .bool(true), "\(name): \(refused?.description ?? "accepted")")
            guard let plan, let engine = one["engine"] else { continue }
            XCTAssertEqual(plan.digest, one["digest"]!.text, name)
            var result: PlanResult?
            let unable = refusal { result = try execute(plan, engine) }
            XCTAssertEqual(unable != nil, one["error"] == .bool(true), "\(name): \(unable?.description ?? "executed")")
            guard let result else { continue }
            let found = try XCTUnwrap(Json.parse(result.text).objectValue)
            for (key, value) in one["result"]!.objectValue! {
                XCTAssertTrue(
                    same(found[key], value),
                    "\(name): \(key) is \(pythonJson(found[key] ?? .null)), not \(pythonJson(value))")
            }
            if let folder { try result.write(to: folder.appending(path: "\(i).json")) }
        }
    }

    private func execute(_ plan: Plan, _ engine: Json) throws -> PlanResult {
        let time = ToyTime()
        let machine = Machine(
            artifact: String(repeating: "0", count: 64), versions: ["toy": "1"], system: "a test", arithmetics: ["fp16"]
        )
        var opened: [Toy] = []
        let memory = Memory(anonymous: 1 << 20, fileBacked: nil, peak: 1 << 21)
        defer { XCTAssertTrue(opened.allSatisfy(\.closed)) }
        let executor = try Executor(
            plan, machine: machine, clock: time.now, memory: { memory }, tokenizer: ToyTokenizer(engine))
        return try executor.run(open: {
            opened.append(Toy(engine, time))
            return opened.last!
        })
    }

    /// Equal; log-sum-exps nearly, and arrays of floats by their numbers, of which a NaN equals any other.
    private func same(_ found: Json?, _ wanted: Json) -> Bool {
        switch (found, wanted) {
        case (.array(let a)?, .array(let b)):
            return a.count == b.count && zip(a, b).allSatisfy(same)
        case (.object(let a)?, .object(let b)):
            if let dtype = b["dtype"]?.stringValue, dtype.hasPrefix("float") {
                guard let (x, y) = (numbers(a), numbers(b)) as? ([Double], [Double]), a["shape"] == b["shape"] else {
                    return false
                }
                let near = dtype == "float64" ? 1e-9 : 0
                return x.count == y.count
                    && zip(x, y).allSatisfy { $0 == $1 || abs($0 - $1) <= near || ($0.isNaN && $1.isNaN) }
            }
            return a.count == b.count && b.allSatisfy { same(a[$0], $1) }
        default:
            return found == wanted
        }
    }

    private func numbers(_ array: JsonObject) -> [Double]? {
        let dtype = array["dtype"]?.stringValue ?? ""
        let rank = array["shape"]?.arrayValue?.count ?? 0
        guard let bytes = try? arrayBytes(.object(array), "result", at: "", dtype: dtype, dimensions: rank).bytes else {
            return nil
        }
        return bytes.withUnsafeBytes { raw in
            dtype == "float64"
                ? (0..<raw.count / 8).map { raw.loadUnaligned(fromByteOffset: 8 * $0, as: Double.self) }
                : (0..<raw.count / 4).map { Double(raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self)) }
        }
    }

    private func plan(_ name: String) throws -> (Plan, Json) {
        let one = try XCTUnwrap(try Vectors.cases("plan", least: 100).first { $0["name"]?.stringValue == name })
        return (try Plan(one["plan"]!.text.utf8), one["engine"]!)
    }

    func testTheDigestIsOfThePlanAndNotOfItsFile() throws {
        let (plan, _) = try plan("an answer by sampling of one")
        let json = try Json.parse(pythonJson(plan.json))
        let spread = try Plan(json.bytes(indent: 2))
        XCTAssertEqual(spread.digest, plan.digest)
    }

    func testATruncatedPlan() throws {
        let raw = Array(pythonJson(try plan("calls of every kind").0.json).utf8)
        for count in stride(from: 0, to: raw.count, by: 97) {
            XCTAssertNotNil(refusal { _ = try Plan(raw.prefix(count)) }, "\(count) bytes")
        }
    }

    func testBrokenOff() throws {
        for name in ["calls of every kind", "times of a bench", "an answer", "loads, then a call"] {
            let (plan, engine) = try plan(name)
            let machine = Machine(artifact: "", versions: [:], system: "")
            var opened: [Toy] = []
            var left = 2
            func goesOn() -> Bool {
                left -= 1
                return left > 0
            }
            XCTAssertThrowsError(
                try Executor(plan, machine: machine).run(
                    open: {
                        opened.append(Toy(engine))
                        return opened.last!
                    }, progress: { _, _, _ in goesOn() }, token: { _ in goesOn() }), name
            ) { XCTAssertTrue($0 is CancellationError, "\(name): \($0)") }
            XCTAssertTrue(opened.allSatisfy(\.closed), name)
        }
    }

    func testAnArithmeticThatTheEngineHasNot() throws {
        let (plan, _) = try plan("an arithmetic")
        XCTAssertNotNil(refusal { _ = try Executor(plan, machine: Machine(artifact: "", versions: [:], system: "")) })
    }

    func testAResultTakesItsPlaceWhenItIsComplete() throws {
        let folder = try temporaryFolder(self)
        let (plan, engine) = try plan("an answer")
        let result = try execute(plan, engine)
        try result.write(to: folder.appending(path: "result.json"))
        try result.write(to: folder.appending(path: "result.json"))
        XCTAssertEqual(try contents(folder), ["result.json": Array(result.text.utf8)])
        XCTAssertNotNil(refusal { try result.write(to: folder.appending(path: "nowhere/result.json")) })
    }
}
