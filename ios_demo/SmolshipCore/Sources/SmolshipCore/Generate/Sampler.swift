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
        let limited = sampling.topK > 0 || sampling.topP < 1
        let share = Float(sampling.minP)
        let kept = (limited ? mostLikely(weights) : Array(weights.indices)).filter { weights[$0] >= share }
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
        let all = weights.count
        let limit = sampling.topK > 0 ? min(sampling.topK, all) : all
        if sampling.topP == 1 { return largest(limit, of: weights) }
        let total = limit < all ? nil : weights.reduce(0) { $0 + Double($1) }
        // A few of them reach the share nearly always, and a sort of all takes longer than a small model's forward.
        var count = total == nil ? limit : min(limit, 256)
        while true {
            let ids = largest(count, of: weights)
            var mass = 0.0
            let sums = ids.map { id in
                mass += Double(weights[id])
                return mass
            }
            let wanted = sampling.topP * (total ?? mass)
            if let last = sums.firstIndex(where: { $0 >= wanted }) { return Array(ids[...last]) }
            if count == limit { return ids }
            count = min(count * 16, limit)
        }
    }
}

/// The least normal float32.
private let tiny = Float.leastNormalMagnitude

/// Ids of the `count` largest weights, largest first, of equal ones the lowest id first. Weights are 0 to 1.
private func largest(_ count: Int, of weights: [Float]) -> [Int] {
    // Bits of numbers that are not negative are in the order of the numbers. So the upper half of the bits tells which
    // weights can be among the largest, and these alone are sorted.
    var many = [Int](repeating: 0, count: Int(Float(1).bitPattern >> 16) + 1)
    for weight in weights { many[Int(weight.bitPattern >> 16)] += 1 }
    var group = many.count
    var found = 0
    while found < count {
        group -= 1
        found += many[group]
    }
    let ids = weights.indices.filter { Int(weights[$0].bitPattern >> 16) >= group }
    return Array(ids.sorted { (weights[$0], $1) > (weights[$1], $0) }.prefix(count))
}

/// Which of the weights a number in [0, 1) falls on.
private func place(of number: Double, in weights: [Float]) -> Int {
    var mass = 0.0
    let sums = weights.map { weight in
        mass += Double(weight)
        return mass
    }
    return min(sums.firstIndex { $0 > number * mass } ?? weights.count, weights.count - 1)
}
