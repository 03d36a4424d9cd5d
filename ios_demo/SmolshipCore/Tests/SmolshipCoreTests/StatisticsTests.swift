import XCTest

@testable import SmolshipCore

final class StatisticsTests: XCTestCase {
    func testVectors() throws {
        for one in try Vectors.cases("statistics", least: 30) {
            let name = one["name"]!.text
            let values = numbers(one["values"])
            switch one["kind"]!.text {
            case "quantiles":
                for (key, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
                    same(quantile(values, q), one[key], name)
                }
            case "spread":
                let spread = Spread(values)
                same(spread.median, one["median"], name)
                same(spread.low, one["low"], name)
                same(spread.high, one["high"], name)
                XCTAssertEqual(spread.count, one["repeats"]!.intValue, name)
            case "agree":
                XCTAssertEqual(agree(values), one["agree"]!.boolValue, name)
            case "decode":
                let times = Times(gapsMs: [1: one["gaps_ms"]!.arrayValue!.map(numbers)])
                for (found, wanted) in zip(times.decodeTokensPerSecond(1), one["tokens_per_s"]!.arrayValue!) {
                    same(found, wanted, name)
                }
                XCTAssertEqual(times.decodeTokensPerSecond(1).count, one["tokens_per_s"]!.arrayValue!.count, name)
            case "prefill":
                let times = Times(ttftMs: [one["prompt"]!.intValue!: numbers(one["ttft_ms"])])
                let found = times.prefillTokensPerSecond(one["prompt"]!.intValue!)
                XCTAssertEqual(found.count, one["tokens_per_s"]!.arrayValue!.count, name)
                for (found, wanted) in zip(found, one["tokens_per_s"]!.arrayValue!) { same(found, wanted, name) }
            case "answer":
                var generated = Generated(promptTokens: 1)
                generated.times = numbers(one["times"])
                same(generated.ttftSeconds, one["ttft_s"], name)
                same(generated.tokensPerSecond, one["decode_tokens_per_s"], name)
            case let kind:
                XCTFail("\(name): an unknown kind \(kind)")
            }
        }
    }

    private func numbers(_ json: Json?) -> [Double] { (json?.arrayValue ?? []).compactMap(\.numberValue) }

    private func same(_ found: Double?, _ wanted: Json?, _ name: String) {
        guard let found, let wanted = wanted?.numberValue else {
            return XCTAssertEqual(found == nil, wanted?.isNull, name)
        }
        XCTAssertEqual(found, wanted, accuracy: abs(wanted) * 1e-12, name)
    }
}
