import Foundation

public func mean(_ values: [Double]) -> Double { values.reduce(0, +) / Double(values.count) }

public func median(_ values: [Double]) -> Double { quantile(values, 0.5) }

/// The value below which a share `q` of the values lies, between two of them in proportion, as numpy's default has it.
public func quantile(_ values: [Double], _ q: Double) -> Double {
    let sorted = values.sorted()
    let place = q * Double(sorted.count - 1)
    let below = Int(place.rounded(.down))
    let (a, b, share) = (sorted[below], sorted[min(below + 1, sorted.count - 1)], place - Double(below))
    // From the nearer side, so that the result is the value itself at both ends.
    return share < 0.5 ? a + (b - a) * share : b - (b - a) * (1 - share)
}

/// Whether the last two of the times lie within 5 % of one another.
func agree(_ times: [Double]) -> Bool {
    guard times.count > 1 else { return false }
    let (before, last) = (times[times.count - 2], times[times.count - 1])
    return abs(last - before) <= 0.05 * min(before, last)
}

/// The median of some repeats, and the lowest and highest.
public struct Spread: Equatable, Sendable {
    public let median: Double
    public let low: Double
    public let high: Double
    public let count: Int

    /// Of at least one value.
    public init(_ values: [Double]) {
        (median, low, high, count) = (SmolshipCore.median(values), values.min()!, values.max()!, values.count)
    }
}
