import Foundation

extension Filters {
    static let numbers: [String: Filter] = [
        "int": { value, arguments, interpreter in
            let values = try arguments.bind("int", ["default", "base"])
            let base = try int(values[1], 10)
            if case .undefined(let undefined) = value { throw undefined.fault }
            if let text = value.text {
                if let whole = try whole(text, base: base) { return whole }
            } else if let whole = BigInt(value) {
                return whole.value
            } else if case .float(let number) = value, number.isInfinite {
                throw Fault.failed("OverflowError: cannot convert float infinity to integer")
            }
            // As in Python, "42.23" is 42.
            guard let number = try floating(value), number.isFinite else { return values[0] ?? .int(0) }
            return BigInt(number.rounded(.towardZero)).value
        },
        "float": { value, arguments, interpreter in
            let values = try arguments.bind("float", ["default"])
            if case .undefined(let undefined) = value { throw undefined.fault }
            return try floating(value).map { .float($0) } ?? values[0] ?? .float(0)
        },
        "abs": { value, arguments, interpreter in
            _ = try arguments.bind("abs", [])
            switch value {
            case .float(let number): return .float(number.magnitude)
            case .int, .big, .bool:
                return try less(value, .int(0)) ? interpreter.negated(value) : interpreter.plus(value)
            default: throw Fault.failed("TypeError: bad operand type for abs(): '\(value.type)'")
            }
        },
        "round": { value, arguments, interpreter in
            let values = try arguments.bind("round", ["precision", "method"])
            let method = values[1] ?? .text("common")
            switch method.text?.string {
            case "common":
                if values[0]?.isNone == true { return try rounded(value, nil) }
                return try rounded(value, try int(values[0], 0))
            case "ceil", "floor":
                let power = try interpreter.apply(.pow, .int(10), values[0] ?? .int(0))
                let scaled = try interpreter.apply(.mul, value, power)
                guard scaled.isNumber else { throw Fault.failed("TypeError: must be real number, not \(scaled.type)") }
                var whole = scaled
                if case .float(let number) = scaled {
                    guard number.isFinite else {
                        throw Fault.failed("OverflowError: cannot convert float infinity or NaN to integer")
                    }
                    whole = BigInt(number.rounded(method.text?.string == "ceil" ? .up : .down)).value
                }
                return try interpreter.apply(.div, whole, power)
            default: throw Fault.failed("FilterArgumentError: method must be common, ceil or floor")
            }
        },
        "filesizeformat": { value, arguments, interpreter in
            let binary = try bool(try arguments.bind("filesizeformat", ["binary"])[0], false, interpreter)
            if case .undefined(let undefined) = value { throw undefined.fault }
            guard let bytes = try floating(value) else {
                throw Fault.failed("TypeError: float() argument must be a string or a real number")
            }
            return .text(try size(bytes, binary))
        },
        "sum": { value, arguments, interpreter in
            let values = try arguments.bind("sum", ["attribute", "start"])
            let items = try attributes(of: value, values[0], interpreter)
            var total = values[1] ?? .int(0)
            guard total.text == nil else {
                throw Fault.failed("TypeError: sum() can't sum strings [use ''.join(seq) instead]")
            }
            for item in items { total = try interpreter.apply(.add, total, item) }
            return total
        },
    ]

    /// Python's int() of a string; nil where that raises.
    private static func whole(_ text: Text, base: Int) throws -> Value? {
        guard base == 0 || (2...36).contains(base) else { return nil }
        guard var digits = plain(text) else { return nil }
        let negative = digits.hasPrefix("-")
        if negative || digits.hasPrefix("+") { digits.removeFirst() }
        var base = base
        for (prefix, prefixed) in [("0x", 16), ("0o", 8), ("0b", 2)] where base == prefixed || base == 0 {
            if digits.lowercased().hasPrefix(prefix) {
                digits.removeFirst(2)
                if digits.hasPrefix("_") { digits.removeFirst() }
                base = prefixed
            }
        }
        if base == 0 {
            guard !digits.hasPrefix("0") || digits.allSatisfy({ $0 == "0" || $0 == "_" }) else { return nil }
            base = 10
        }
        guard let digits = withoutUnderscores(digits), digits.first != "-", digits.first != "+" else { return nil }
        guard let number = BigInt(digits: digits, base: base) else { return nil }
        return (negative ? -number : number).value
    }

    /// The text without white space around it, with ASCII digits for those of other scripts.
    private static func plain(_ text: Text) -> String? {
        let digits = text.stripped(nil, left: true, right: true).map { scalar -> Unicode.Scalar in
            guard !scalar.isASCII, scalar.isDecimal, let value = scalar.properties.numericValue else { return scalar }
            return Unicode.Scalar(UInt8(48 + Int(value)))
        }
        return digits.allSatisfy(\.isASCII) ? digits.string : nil
    }

    /// Python allows an underscore between two digits.
    private static func withoutUnderscores(_ text: String) -> String? {
        let parts = text.split(separator: "_", omittingEmptySubsequences: false)
        guard parts.allSatisfy({ !$0.isEmpty }) else { return nil }
        return parts.joined()
    }

    /// Python's float(); nil where that raises a TypeError or ValueError.
    static func floating(_ value: Value) throws -> Double? {
        guard let text = value.text else { return value.isNumber ? try value.double() : nil }
        guard var digits = plain(text)?.lowercased() else { return nil }
        let bare = digits.hasPrefix("-") || digits.hasPrefix("+") ? digits.dropFirst() : digits[...]
        if bare == "inf" || bare == "infinity" { return digits.hasPrefix("-") ? -Double.infinity : .infinity }
        if bare == "nan" { return .nan }
        guard let first = bare.first, first.isNumber || first == ".",
            bare.allSatisfy({ $0.isNumber || "._e+-".contains($0) })
        else { return nil }
        if digits.contains("_") {
            let characters = Array(digits)
            for (place, character) in characters.enumerated() where character == "_" {
                guard place > 0, place + 1 < characters.count, characters[place - 1].isNumber,
                    characters[place + 1].isNumber
                else { return nil }
            }
            digits = digits.replacingOccurrences(of: "_", with: "")
        }
        // Swift wants digits on both sides of the point.
        let parts = digits.split(separator: "e", maxSplits: 1, omittingEmptySubsequences: false)
        var mantissa = String(parts[0])
        guard mantissa.contains(where: \.isNumber) else { return nil }
        if mantissa.hasSuffix(".") { mantissa += "0" }
        mantissa = mantissa.replacingOccurrences(of: "-.", with: "-0.").replacingOccurrences(of: "+.", with: "+0.")
        if mantissa.hasPrefix(".") { mantissa = "0" + mantissa }
        return Double(parts.count > 1 ? mantissa + "e" + parts[1] : mantissa)
    }

    /// Python's round(): to even, exactly.
    private static func rounded(_ value: Value, _ places: Int?) throws -> Value {
        if case .float(let number) = value {
            guard let places else {
                guard number.isFinite else {
                    throw Fault.failed("OverflowError: cannot convert float infinity or NaN to integer")
                }
                return BigInt(number.rounded(.toNearestOrEven)).value
            }
            guard number.isFinite, places < 400 else { return value }
            if places >= 0 { return .float(Double(String(format: "%.\(places)f", number))!) }
            guard places > -400 else { return .float(copysign(0, number)) }
            let whole = number.magnitude.rounded(.down)
            let near = try nearest(BigInt(whole), tens: -places, hasFraction: whole < number.magnitude)
            return .float(copysign(near.double, number))
        }
        guard let whole = BigInt(value) else {
            throw Fault.failed("TypeError: type \(value.type) doesn't define __round__ method")
        }
        guard let places, places < 0 else { return whole.value }
        guard places > -4000 else { return .int(0) }
        let near = try nearest(whole.negative ? -whole : whole, tens: -places, hasFraction: false)
        return (whole.negative ? -near : near).value
    }

    /// The nearest multiple of a power of ten, of two the even one.
    private static func nearest(_ size: BigInt, tens: Int, hasFraction: Bool) throws -> BigInt {
        let unit = try BigInt(10).power(tens)
        let (quotient, rest) = try size.dividedDown(by: unit)
        let twice = rest + rest
        let up = twice > unit || twice == unit && (hasFraction || quotient.isOdd)
        return try (up ? quotient + BigInt(1) : quotient) * unit
    }

    private static func size(_ bytes: Double, _ binary: Bool) throws -> String {
        let base = binary ? 1024.0 : 1000.0
        if bytes == 1 { return "1 Byte" }
        if bytes < base {
            guard bytes.isFinite else { throw Fault.failed("OverflowError: cannot convert float infinity to integer") }
            return "\(BigInt(bytes.rounded(.towardZero)).digits()) Bytes"
        }
        let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"].map {
            binary ? ($0 == "k" ? "K" : $0) + "iB" : $0 + "B"
        }
        for (place, prefix) in prefixes.enumerated() {
            let unit = pow(base, Double(place + 2))
            if bytes < unit || place == prefixes.count - 1 {
                return String(format: "%.1f", base * bytes / unit) + " " + prefix
            }
        }
        return ""
    }
}
