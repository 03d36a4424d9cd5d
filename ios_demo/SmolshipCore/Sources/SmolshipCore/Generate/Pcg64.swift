/// Random numbers of the generator PCG64 (XSL RR 128/64), seeded as numpy's default_rng seeds it: the same seed gives
/// the same numbers in Python and here.
public final class Pcg64 {
    private var state: UInt128 = 0
    private let increment: UInt128

    public init(seed: UInt64) {
        let words = SeedSequence(seed).words64(4)
        increment = (UInt128(words[2]) << 64 | UInt128(words[3])) << 1 | 1
        step()
        state &+= UInt128(words[0]) << 64 | UInt128(words[1])
        step()
    }

    public func next() -> UInt64 {
        step()
        let mixed = UInt64(truncatingIfNeeded: state >> 64) ^ UInt64(truncatingIfNeeded: state)
        let turn = UInt64(truncatingIfNeeded: state >> 122)
        return mixed >> turn | mixed << ((64 - turn) & 63)
    }

    /// A number in [0, 1).
    public func uniform() -> Double {
        Double(next() >> 11) * 0x1p-53
    }

    private func step() {
        let multiplier = UInt128(0x2360_ED05_1FC6_5DA4) << 64 | UInt128(0x4385_DF64_9FCC_F645)
        state = state &* multiplier &+ increment
    }
}

/// Spreads a seed over many bits, as numpy's SeedSequence does.
struct SeedSequence {
    private var pool = [UInt32](repeating: 0, count: 4)

    init(_ seed: UInt64) {
        var constant: UInt32 = 0x43B0_D7E5
        func hashed(_ value: UInt32) -> UInt32 {
            var value = value ^ constant
            constant = constant &* 0x931E_8875
            value = value &* constant
            return value ^ value >> 16
        }
        let entropy = [UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32), 0, 0]
        pool = entropy.map(hashed)
        for source in pool.indices {
            for target in pool.indices where source != target {
                let mixed = 0xCA01_F9DD &* pool[target] &- 0x4973_F715 &* hashed(pool[source])
                pool[target] = mixed ^ mixed >> 16
            }
        }
    }

    func words64(_ count: Int) -> [UInt64] {
        var constant: UInt32 = 0x8B51_F9DD
        let halves = (0..<2 * count).map { i in
            var value = pool[i % pool.count] ^ constant
            constant = constant &* 0x58F3_8DED
            value = value &* constant
            return UInt64(value ^ value >> 16)
        }
        return (0..<count).map { halves[2 * $0] | halves[2 * $0 + 1] << 32 }
    }
}
