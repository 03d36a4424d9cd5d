import Foundation

/// Draws tokens as `Sampling` says, from one sequence of random numbers.
public struct Sampler {
    public let sampling: Sampling
    private let uniform: () -> Double

    /// `uniform` gives the numbers in [0, 1), one for each token that is not greedy; by default they are those that
    /// Python's numpy gives for the same seed.
    public init(_ sampling: Sampling, uniform: (() -> Double)? = nil) {
        self.sampling = sampling
        if let uniform {
            self.uniform = uniform
        } else {
            let random = Pcg64(seed: sampling.seed ?? UInt64.random(in: .min ... .max))
            self.uniform = { random.uniform() }
        }
    }

    /// A token id, given its logits and the tokens before it.
    public func pick(_ logits: [Float], after text: some Sequence<Int> = EmptyCollection<Int>()) throws -> Int {
        guard !logits.isEmpty else { throw Refusal("the model has no logits", got: "none") }
        var logits = logits
        var best = largestIndex(logits)
        guard logits[best].isFinite else {
            throw Refusal("the model's logits are not numbers", got: logits[best], todo: "run `smolship parity`")
        }
        if sampling.repetitionPenalty != 1 {
            try penalize(&logits, Set(text))
            best = largestIndex(logits)
        }
        if sampling.temperature == 0 { return best }
        let temperature = Float(min(max(sampling.temperature, Double(tiny)), Double(Float.greatestFiniteMagnitude)))
        let top = logits[best]
        let weights = logits.map { exp(($0 - top) / temperature) }  // the largest is 1
        let share = Float(sampling.minP)
        guard sampling.topK > 0 || sampling.topP < 1 else {
            return place(of: uniform(), in: weights.map { $0 >= share ? $0 : 0 })
        }
        let kept = mostLikely(weights).filter { weights[$0] >= share }
        return kept[place(of: uniform(), in: kept.map { weights[$0] })]
    }

    private func penalize(_ logits: inout [Float], _ seen: Set<Int>) throws {
        let most = Double(Float.greatestFiniteMagnitude)
        for id in seen {
            guard logits.indices.contains(id) else {
                throw Refusal("a token id is not in the vocabulary", got: id, expected: "0 to \(logits.count - 1)")
            }
            let known = Double(logits[id])
            let moved = known > 0 ? known / sampling.repetitionPenalty : known * sampling.repetitionPenalty
            logits[id] = Float(min(max(moved, -most), most))
        }
    }

    /// Ids of the `topK` largest weights, then of as many of these as reach the share `topP`, largest first.
    private func mostLikely(_ weights: [Float]) -> [Int] {
        let isLimited = sampling.topK > 0 && sampling.topK < weights.count
        let ids: [Int]
        var total = 0.0
        if isLimited {
            ids = Array(largest(of: weights, count: sampling.topK, mass: .infinity).prefix(sampling.topK))
            for id in ids { total += Double(weights[id]) }
        } else {
            for weight in weights { total += Double(weight) }
            ids = largest(of: weights, count: weights.count, mass: sampling.topP * total)
        }
        if sampling.topP == 1 { return ids }
        var mass = 0.0
        let last = ids.firstIndex { id in
            mass += Double(weights[id])
            return mass >= sampling.topP * total
        }
        return Array(ids[...(last ?? ids.count - 1)])
    }
}

/// The least normal float32.
private let tiny = Float.leastNormalMagnitude

/// Ids of the largest weights, largest first, of equal ones the lowest id first: at least `count` of them or, where that
/// is less, as many as weigh `mass` together. Weights are 0 to 1. A sort of all would take longer than a small model's
/// forward.
private func largest(of weights: [Float], count: Int, mass: Double) -> [Int] {
    // Bits of numbers that are not negative are in the order of the numbers. So the upper half of the bits tells which
    // weights can be among the largest, and these alone are sorted.
    let groups = Int(Float(1).bitPattern >> 16) + 1
    var counts = [Int](repeating: 0, count: groups)
    var masses = [Double](repeating: 0, count: groups)
    for weight in weights {
        counts[Int(weight.bitPattern >> 16)] += 1
        masses[Int(weight.bitPattern >> 16)] += Double(weight)
    }
    var (group, found, sum) = (groups, 0, 0.0)
    // A little more than `mass`, as another order of the terms rounds the sum to another number.
    while group > 0, found < count, sum <= mass * (1 + 1e-9) {
        group -= 1
        found += counts[group]
        sum += masses[group]
    }
    let ids = weights.indices.filter { Int(weights[$0].bitPattern >> 16) >= group }
    return ids.sorted { (weights[$0], $1) > (weights[$1], $0) }
}

/// Which of the weights a number in [0, 1) falls on.
private func place(of number: Double, in weights: [Float]) -> Int {
    var total = 0.0
    for weight in weights { total += Double(weight) }
    var mass = 0.0
    let found = weights.firstIndex { weight in
        mass += Double(weight)
        return mass > number * total
    }
    return found ?? weights.lastIndex { $0 > 0 } ?? 0
}
