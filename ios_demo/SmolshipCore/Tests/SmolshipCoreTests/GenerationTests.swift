import XCTest

@testable import SmolshipCore

final class GenerationTests: XCTestCase {
    func testStreamVectors() throws {
        for one in try Vectors.cases("stream", least: 60) {
            let name = one["name"]!.text
            var stream = TextStream()
            for (token, piece) in zip(one["tokens"]!.arrayValue!, one["pieces"]!.arrayValue!) {
                sameText(stream.push(bytes(token.text)), piece.text, name)
            }
            sameText(stream.finish(), one["rest"]!.text, name)
            sameText(stream.finish(), "", name)
        }
    }

    private func bytes(_ hex: String) -> [UInt8] {
        let digits = Array(hex)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0..<$0 + 2]), radix: 16)! }
    }

    func testStopVectors() throws {
        for one in try Vectors.cases("stops", least: 20) {
            let name = one["name"]!.text
            let engine = Says(one["ids"]!.arrayValue!.map(\.intValue), capacity: one["capacity"]!.intValue!)
            var kept: [Int] = []
            var generation: Generation?
            let refused = refusal {
                let prompt = [Int](repeating: 1, count: one["prompt"]!.intValue!)
                let made = try Generation(
                    engine, prompt: prompt, maxTokens: one["max_tokens"]!.intValue, stopIds: Set(one["stops"]!.ints))
                generation = made
                while kept.count != one["breaks_after"]?.intValue, let id = try made.next() { kept.append(id) }
            }
            XCTAssertEqual(
                refused != nil, one["error"] == .bool(true), "\(name): \(refused?.description ?? "not refused")")
            XCTAssertEqual(kept, one["kept"]!.ints, name)
            XCTAssertEqual(engine.position, one["position"]!.intValue, name)
            if let generated = generation?.generated, one["error"] == nil {
                XCTAssertEqual(generated.ids, kept, name)
                XCTAssertEqual(generated.end.rawValue, one["end"]!.text, name)
                XCTAssertEqual(generated.stopId, one["stop_id"]!.intValue, name)
            }
        }
    }

    func testTimes() throws {
        var now = 10.0
        let generation = try Generation(
            Says([5, 6, 2], capacity: 9), prompt: [1, 1], stopIds: [2],
            clock: {
                now += 0.25
                return now
            })
        while try generation.next() != nil {}
        let found = generation.generated
        XCTAssertEqual(found.times, [0.25, 0.5, 0.75])
        XCTAssertEqual(found.ttftSeconds, 0.25)
        XCTAssertEqual(found.tokensPerSecond, 4)
        XCTAssertEqual(
            found.ending, Ending(end: .stop, promptTokens: 2, tokens: 2, ttftSeconds: 0.25, tokensPerSecond: 4))
        XCTAssertNil(try generation.next())
    }

    func testALongPromptIsFedInChunksAndCanBeBrokenOffBetweenThem() throws {
        let engine = Says([1, 1, 1, 1], capacity: 20, chunk: 3)
        var asked = 0
        let generation = try Generation(engine, prompt: [7, 8, 9, 7, 8, 9, 7])
        let id = try generation.next {
            asked += 1
            return asked < 2
        }
        XCTAssertNil(id)
        XCTAssertEqual(engine.fed, [7, 8, 9, 7, 8, 9])
        XCTAssertEqual(generation.generated.end, .interrupted)
        XCTAssertEqual(generation.generated.times, [])
        XCTAssertNil(try generation.next())
    }

    func testAnEngineThatLies() {
        final class Liar: TokenEngine {
            let (vocab, capacity) = (4, 10)
            var position = 0
            var (moves, count) = (1, 4)
            func forward(_ ids: [Int]) -> [Float] {
                position += moves * ids.count
                return [Float](repeating: 0, count: count)
            }
            func rewind(to position: Int) {}
            func close() {}
        }
        let engine = Liar()
        XCTAssertNil(refusal { _ = try engine.feed([1]) })
        XCTAssertNotNil(refusal { try engine.goBack(to: 0) })
        engine.count = 3
        XCTAssertNotNil(refusal { _ = try engine.feed([1]) })
        (engine.count, engine.moves) = (4, 0)
        XCTAssertNotNil(refusal { _ = try engine.feed([1]) })
        XCTAssertNotNil(refusal { _ = try engine.feed([4]) })
        XCTAssertNotNil(refusal { _ = try engine.feed([-1]) })
        XCTAssertNotNil(refusal { _ = try engine.feed([Int](repeating: 0, count: 11)) })
        XCTAssertNotNil(refusal { try engine.goBack(to: 5) })
        XCTAssertNotNil(refusal { try engine.goBack(to: -1) })
    }

    func testAnEngineThatFailsEndsTheAnswer() throws {
        let generation = try Generation(Says([5], capacity: 9), prompt: [1])
        XCTAssertEqual(try generation.next(), 5)
        XCTAssertNotNil(refusal { _ = try generation.next() })
        XCTAssertNil(try generation.next())
        XCTAssertEqual(generation.generated.ids, [5])
    }
}
