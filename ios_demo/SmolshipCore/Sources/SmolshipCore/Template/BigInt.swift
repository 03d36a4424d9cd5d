/// A whole number of up to some thousand digits, in 32-bit words, the lowest first.
struct BigInt: Comparable {
    private(set) var words: [UInt32]  // without zeros at the top
    private(set) var negative: Bool

    /// 4300 digits, the most that Python prints.
    static let maximalWords = 447

    private init(words: [UInt32], negative: Bool) {
        var words = words
        while words.last == 0 { words.removeLast() }
        self.words = words
        self.negative = negative && !words.isEmpty
    }

    init(_ value: Int) {
        let size = value.magnitude
        self.init(
            words: [UInt32(truncatingIfNeeded: size), UInt32(truncatingIfNeeded: size >> 32)], negative: value < 0)
    }

    /// A whole number or boolean of a template; nil for other values.
    init?(_ value: Value) {
        switch value {
        case .big(let big): self = big
        default:
            guard let small = value.int else { return nil }
            self.init(small)
        }
    }

    /// A finite double without fraction.
    init(_ value: Double) {
        let bits = value.significandBitPattern | (value.exponentBitPattern == 0 ? 0 : 1 << 52)
        let shift = Int(value.exponentBitPattern) - 1075
        guard shift > 0 else {
            self.init(Int(value))
            return
        }
        var words = [UInt32](repeating: 0, count: shift / 32)
        let (low, high) = (bits << UInt64(shift % 32), shift % 32 == 0 ? 0 : bits >> UInt64(64 - shift % 32))
        words += [UInt32(truncatingIfNeeded: low), UInt32(low >> 32), UInt32(high)]
        self.init(words: words, negative: value < 0)
    }

    /// Digits with or without a sign; nil where there are others or too many.
    init?(digits: some StringProtocol, base: Int = 10) {
        let negative = digits.hasPrefix("-")
        let plain = negative || digits.hasPrefix("+") ? digits.dropFirst() : digits[...]
        guard !plain.isEmpty, plain.utf8.count <= 4300 else { return nil }
        var words: [UInt32] = []
        for character in plain {
            guard character.isASCII, let digit = character.hexDigitValue ?? BigInt.letter(character), digit < base
            else { return nil }
            BigInt.multiply(&words, by: UInt32(base), adding: UInt32(digit))
        }
        self.init(words: words, negative: negative)
    }

    private static func letter(_ character: Character) -> Int? {
        guard let ascii = character.lowercased().utf8.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(ascii)
        else { return nil }
        return Int(ascii - UInt8(ascii: "a")) + 10
    }

    /// The smallest kind of value that holds this.
    var value: Value {
        if words.count <= 2 {
            let size = words.reversed().reduce(UInt64(0)) { $0 << 32 | UInt64($1) }
            if let small = Int(exactly: size) { return .int(negative ? -small : small) }
            if negative, size == Int.min.magnitude { return .int(Int.min) }
        }
        return .big(self)
    }

    /// The nearest double, as Python's float(); infinite beyond its range.
    var double: Double { Double(digits())! }

    var isZero: Bool { words.isEmpty }
    var isOdd: Bool { (words.first ?? 0) & 1 == 1 }

    func digits(base: UInt32 = 10, uppercase: Bool = false) -> String {
        guard !isZero else { return "0" }
        var rest = words
        var digits: [String] = []
        let (group, size) =
            base == 10
            ? (UInt32(1_000_000_000), 9) : base == 8 ? (UInt32(1 << 30), 10) : base == 2 ? (1 << 31, 31) : (1 << 28, 7)
        while !rest.isEmpty {
            let part = String(BigInt.divide(&rest, by: group), radix: Int(base), uppercase: uppercase)
            digits.append(rest.isEmpty ? part : String(repeating: "0", count: size - part.count) + part)
        }
        return (negative ? "-" : "") + digits.reversed().joined()
    }

    private static func multiply(_ words: inout [UInt32], by factor: UInt32, adding: UInt32) {
        var carry = UInt64(adding)
        for place in words.indices {
            carry += UInt64(words[place]) * UInt64(factor)
            words[place] = UInt32(truncatingIfNeeded: carry)
            carry >>= 32
        }
        if carry > 0 { words.append(UInt32(carry)) }
    }

    /// Divides in place; the remainder.
    private static func divide(_ words: inout [UInt32], by divisor: UInt32) -> UInt32 {
        var rest: UInt64 = 0
        for place in words.indices.reversed() {
            rest = rest << 32 | UInt64(words[place])
            words[place] = UInt32(rest / UInt64(divisor))
            rest %= UInt64(divisor)
        }
        while words.last == 0 { words.removeLast() }
        return UInt32(rest)
    }

    static func < (left: BigInt, right: BigInt) -> Bool {
        if left.negative != right.negative { return left.negative }
        return left.negative ? smaller(right.words, left.words) : smaller(left.words, right.words)
    }

    private static func smaller(_ left: [UInt32], _ right: [UInt32]) -> Bool {
        left.count != right.count
            ? left.count < right.count : left.reversed().lexicographicallyPrecedes(right.reversed())
    }

    static prefix func - (value: BigInt) -> BigInt { BigInt(words: value.words, negative: !value.negative) }

    static func + (left: BigInt, right: BigInt) -> BigInt {
        if left.negative == right.negative {
            return BigInt(words: sum(left.words, right.words), negative: left.negative)
        }
        return smaller(left.words, right.words)
            ? BigInt(words: difference(right.words, left.words), negative: right.negative)
            : BigInt(words: difference(left.words, right.words), negative: left.negative)
    }

    static func - (left: BigInt, right: BigInt) -> BigInt { left + -right }

    private static func sum(_ left: [UInt32], _ right: [UInt32]) -> [UInt32] {
        var result: [UInt32] = []
        var carry: UInt64 = 0
        for place in 0..<max(left.count, right.count) {
            carry += UInt64(place < left.count ? left[place] : 0) + UInt64(place < right.count ? right[place] : 0)
            result.append(UInt32(truncatingIfNeeded: carry))
            carry >>= 32
        }
        return result + [UInt32(carry)]
    }

    private static func difference(_ larger: [UInt32], _ smaller: [UInt32]) -> [UInt32] {
        var result = larger
        var borrow: Int64 = 0
        for place in larger.indices {
            let value = Int64(larger[place]) - Int64(place < smaller.count ? smaller[place] : 0) - borrow
            borrow = value < 0 ? 1 : 0
            result[place] = UInt32(truncatingIfNeeded: value)
        }
        return result
    }

    static func * (left: BigInt, right: BigInt) throws -> BigInt {
        guard left.words.count + right.words.count <= maximalWords else {
            throw Fault.limit("a number of thousands of digits")
        }
        var result = [UInt32](repeating: 0, count: left.words.count + right.words.count)
        for (i, a) in left.words.enumerated() {
            var carry: UInt64 = 0
            for (j, b) in right.words.enumerated() {
                carry += UInt64(a) * UInt64(b) + UInt64(result[i + j])
                result[i + j] = UInt32(truncatingIfNeeded: carry)
                carry >>= 32
            }
            result[i + right.words.count] = UInt32(carry)
        }
        return BigInt(words: result, negative: left.negative != right.negative)
    }

    /// Python's // and %: the quotient rounded down, the remainder with the divisor's sign.
    func dividedDown(by divisor: BigInt) throws -> (quotient: BigInt, remainder: BigInt) {
        guard !divisor.isZero else { throw Fault.failed("ZeroDivisionError: integer division or modulo by zero") }
        var (quotient, rest) = ([UInt32](repeating: 0, count: words.count), [UInt32]())
        for bit in stride(from: words.count * 32 - 1, through: 0, by: -1) {
            BigInt.multiply(&rest, by: 2, adding: words[bit / 32] >> UInt32(bit % 32) & 1)
            if !BigInt.smaller(rest, divisor.words) {
                rest = BigInt.difference(rest, divisor.words)
                while rest.last == 0 { rest.removeLast() }
                quotient[bit / 32] |= 1 << UInt32(bit % 32)
            }
        }
        let down = BigInt(words: quotient, negative: negative != divisor.negative)
        let remainder = BigInt(words: rest, negative: negative)
        guard !remainder.isZero, negative != divisor.negative else { return (down, remainder) }
        return (down - BigInt(1), remainder + divisor)
    }

    /// The nearest double to a quotient.
    func divided(by divisor: BigInt) throws -> Double {
        let shift = max(divisor.words.count - words.count + 3, 0) * 32  // for more bits than a double has
        let (size, divisorSize) = (BigInt(words: words, negative: false), BigInt(words: divisor.words, negative: false))
        var (quotient, rest) = try (size * BigInt(2).power(shift)).dividedDown(by: divisorSize)
        if !rest.isZero { quotient = quotient + quotient + BigInt(1) } else { quotient = quotient + quotient }
        let result = Double(
            sign: negative == divisor.negative ? .plus : .minus, exponent: -shift - 1, significand: quotient.double)
        guard result.isFinite else {
            throw Fault.failed("OverflowError: integer division result too large for a float")
        }
        return result
    }

    func power(_ exponent: Int) throws -> BigInt {
        var (result, factor, rest) = (BigInt(1), self, exponent)
        while rest > 0 {
            if rest & 1 == 1 { result = try result * factor }
            rest >>= 1
            if rest > 0 { factor = try factor * factor }
        }
        return result
    }
}
