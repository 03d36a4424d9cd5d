import Foundation

/// A sketch of the logits at some positions.
public struct Seen: Sendable {
    /// Log-sum-exp of all logits.
    public private(set) var lse: [Double] = []
    /// The largest logit's token, and that logit.
    public private(set) var best: [Int] = []
    public private(set) var peak: [Float] = []
    /// The logits at the ids that were wanted, a row a position.
    public private(set) var at: [Float] = []
    /// SHA-256 of each position's logits, where the call was exact.
    public private(set) var digests: [String] = []
    private let wanted: Table
    private let exact: Bool

    init(wanted: Table, exact: Bool) {
        (self.wanted, self.exact) = (wanted, exact)
    }

    /// The next position's logits.
    mutating func add(_ logits: [Float]) {
        let top = largestIndex(logits)
        for id in wanted[best.count] { at.append(logits[Int(id)]) }
        best.append(top)
        peak.append(logits[top])
        lse.append(logSumExp(logits))
        if exact { digests.append(digest(logits)) }
    }

    var json: Json {
        let object: JsonObject = [
            "lse": doublesJson(lse), "best": .array(best.map(Json.int)), "peak": floatsJson(peak, [peak.count]),
            "at": floatsJson(at, [best.count, wanted.columns]), "digests": .array(digests.map(Json.string)),
        ]
        return .object(object)
    }
}

/// In double precision; a NaN of NaNs.
func logSumExp(_ logits: [Float]) -> Double {
    let peak = Double(logits[largestIndex(logits)])
    return peak + log(logits.reduce(0) { $0 + exp(Double($1) - peak) })
}

/// SHA-256 of logits, in which a NaN equals any other and 0 equals -0.
private func digest(_ logits: [Float]) -> String {
    Sha256.hex(littleEndian(logits.map { ($0.isNaN ? Float.nan : $0 + 0).bitPattern }))
}
