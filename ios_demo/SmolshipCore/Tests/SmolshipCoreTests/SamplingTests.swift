import XCTest

@testable import SmolshipCore

final class SamplingTests: XCTestCase {
    func testVectors() throws {
        for one in try Vectors.cases("sampling", least: 50) {
            let name = one["name"]!.text
            let logits = try XCTUnwrap(one["logits"]?.arrayValue).map(\.float)
            let text = one["text"]!.ints
            var uniforms = (one["uniforms"]?.arrayValue ?? []).compactMap(\.numberValue)
            let count = one["picks"]?.ints.count ?? 1
            var picks: [Int] = []
            let refused = refusal {
                let sampler = Sampler(try sampling(one["sampling"]!), uniform: { uniforms.removeFirst() })
                for _ in 0..<count { picks.append(try sampler.pick(logits, after: text)) }
            }
            if one["error"] == .bool(true) {
                XCTAssertNotNil(refused, name)
            } else {
                XCTAssertNil(refused, name)
                XCTAssertEqual(picks, one["picks"]!.ints, name)
                XCTAssertEqual(uniforms, [], name)
            }
        }
    }

    private func sampling(_ json: Json) throws -> Sampling {
        try Sampling(
            temperature: json["temperature"]!.numberValue!, topP: json["top_p"]!.numberValue!,
            topK: json["top_k"]!.intValue!,
            minP: json["min_p"]!.numberValue!, repetitionPenalty: json["repetition_penalty"]!.numberValue!)
    }

    /// What numpy.random.default_rng(seed).random() gives.
    func testRandomNumbersAreNumpys() {
        let known: [UInt64: [Double]] = [
            0: [0.6369616873214543, 0.2697867137638703, 0.04097352393619469],
            1: [0.5118216247002567, 0.9504636963259353, 0.14415961271963373],
            42: [0.7739560485559633, 0.4388784397520523, 0.8585979199113825],
            1 << 40: [0.3608095734199638, 0.6282402478110984, 0.9952293578054576],
        ]
        for (seed, expected) in known {
            let random = Pcg64(seed: seed)
            XCTAssertEqual(expected.map { _ in random.uniform() }, expected, "seed \(seed)")
        }
    }

    func testASeedRepeatsAndNoneDoesNot() throws {
        let logits = [Float](repeating: 0, count: 1000)
        func drawn(_ seed: UInt64?) throws -> [Int] {
            let sampler = Sampler(try Sampling(temperature: 1, seed: seed))
            return try (0..<20).map { _ in try sampler.pick(logits) }
        }
        XCTAssertEqual(try drawn(7), try drawn(7))
        XCTAssertNotEqual(try drawn(nil), try drawn(nil))
    }

    func testMinPKeepsWhatIsAsLikelyAsTheFirst() throws {
        for (topK, topP) in [(0, 1.0), (2, 1), (0, 0.99)] {
            let sampling = try Sampling(temperature: 1, topP: topP, topK: topK, minP: 1)
            XCTAssertEqual(try Sampler(sampling, uniform: { 0.9 }).pick([-9, 1, 0.5, 1]), 3)
        }
    }

    func testPenaltyOfATokenThatIsNotThere() throws {
        let sampler = Sampler(try Sampling(temperature: 0, repetitionPenalty: 2))
        XCTAssertNotNil(refusal { _ = try sampler.pick([1, 2], after: [2]) })
    }

    /// The selection by bits against a plain sort, over weights of many sizes with ties among them.
    func testTopKAndTopPOfManyTokens() throws {
        let random = Pcg64(seed: 3)
        let logits = (0..<1500).map { _ in Float((random.uniform() * 90).rounded() / 8) }
        let top = logits.max()!
        let weights = logits.map { Double(exp(($0 - top) / 2)) }
        let order = logits.indices.sorted { (-logits[$0], $0) < (-logits[$1], $1) }
        for (k, p) in [(1, 1.0), (7, 1), (256, 1), (1499, 1), (1500, 1), (0, 0.9), (0, 0.9999), (300, 0.5), (0, 1e-9)] {
            var kept = order.prefix(k == 0 ? 1500 : k)
            let total = kept.reduce(0) { $0 + weights[$1] }
            var mass = 0.0
            kept = kept.prefix { id in
                defer { mass += weights[id] }
                return mass < p * total
            }
            var number = 0.0
            let sampler = Sampler(try Sampling(temperature: 2, topP: p, topK: k), uniform: { number })
            mass = 0
            let kepts = kept.reduce(0) { $0 + weights[$1] }
            for (place, id) in kept.enumerated() {
                if place % 101 == 0 || place == kept.count - 1 {
                    number = (mass + weights[id] / 2) / kepts
                    XCTAssertEqual(try sampler.pick(logits), id, "\(place) of \(kept.count), top_k \(k), top_p \(p)")
                }
                mass += weights[id]
            }
        }
    }
}
