import Foundation

/// How a number is to be written: the parts that % and format() have in common.
struct NumberStyle {
    var sign: Character = "-"  // or "+" or " " for what numbers that are not negative begin with
    var alternate = false
    var precision: Int?
    var grouping: Character?
    var type: Character = "d"
}

/// A number in parts, to be padded between them.
struct NumberParts {
    var sign = ""
    var prefix = ""
    var digits = ""
    var rest = ""  // point, fraction, exponent

    /// With the digits in groups, and with zeros before them up to a width.
    func text(grouping: Character?, size: Int = 3, zerosTo width: Int = 0) -> String {
        var digits = digits
        func grouped() -> String {
            guard let grouping, digits.allSatisfy(\.isHexDigit) else { return digits }
            let reversed = Array(digits.reversed())
            return String(
                reversed.enumerated().flatMap { $0 > 0 && $0 % size == 0 ? [grouping, $1] : [$1] }.reversed())
        }
        let fixed = sign.count + prefix.count + rest.count
        if grouping == nil { digits = String(repeating: "0", count: max(0, width - fixed - digits.count)) + digits }
        while grouped().count + fixed < width { digits = "0" + digits }
        return sign + prefix + grouped() + rest
    }
}

extension NumberStyle {
    private func signText(_ negative: Bool) -> String { negative ? "-" : sign == "-" ? "" : String(sign) }

    func whole(_ value: BigInt) -> NumberParts {
        let size = value.negative ? -value : value
        var parts = NumberParts(sign: signText(value.negative))
        switch type {
        case "x": (parts.digits, parts.prefix) = (size.digits(base: 16), "0x")
        case "X": (parts.digits, parts.prefix) = (size.digits(base: 16, uppercase: true), "0X")
        case "o": (parts.digits, parts.prefix) = (size.digits(base: 8), "0o")
        case "b": (parts.digits, parts.prefix) = (size.digits(base: 2), "0b")
        default: parts.digits = size.digits()
        }
        if !alternate { parts.prefix = "" }
        return parts
    }

    /// `type` e, f or g in either case, % or r: as repr, with a precision as g with a fraction.
    func float(_ value: Double) throws -> NumberParts {
        var parts = NumberParts(sign: signText(value.sign == .minus && !value.isNaN))
        let size = value.magnitude
        let upper = type.isUppercase
        guard size.isFinite else {
            parts.digits = upper ? (size.isNaN ? "NAN" : "INF") : size.isNaN ? "nan" : "inf"
            if type == "%" { parts.rest = "%" }
            return parts
        }
        let precision = precision ?? 6
        guard precision <= 1000 else { throw Fault.limit("a number of more than 1000 digits") }
        let text: String
        switch type.lowercased() {
        case "f": text = fixed(size, precision)
        case "%": text = fixed(size * 100, precision)
        case "e": text = scientific(size, precision)
        case "r" where self.precision == nil:
            let shortest = pythonRepr(size)
            text = alternate && !shortest.contains(".") ? shortest.replacingOccurrences(of: "e", with: ".e") : shortest
        default: text = general(size, max(precision, 1), withFraction: type == "r")
        }
        let whole = text.prefix { $0.isNumber }
        parts.digits = String(whole)
        parts.rest = String(text.dropFirst(whole.count)) + (type == "%" ? "%" : "")
        if upper { parts.rest = parts.rest.uppercased() }
        return parts
    }

    private func fixed(_ size: Double, _ precision: Int) -> String {
        String(format: "%.\(precision)f", size) + (alternate && precision == 0 ? "." : "")
    }

    private func scientific(_ size: Double, _ precision: Int) -> String {
        let text = String(format: "%.\(precision)e", size)
        guard alternate, precision == 0 else { return text }
        return text.replacingOccurrences(of: "e", with: ".e")
    }

    private func general(_ size: Double, _ precision: Int, withFraction: Bool) -> String {
        let parts = String(format: "%.\(precision - 1)e", size).split(separator: "e")
        let exponent = Int(parts[1])!
        let isScientific = exponent < -4 || exponent >= (withFraction ? precision - 1 : precision)
        var text = isScientific ? String(parts[0]) : String(format: "%.\(max(precision - 1 - exponent, 0))f", size)
        if !alternate, text.contains(".") {
            while text.hasSuffix("0") { text.removeLast() }
            if text.hasSuffix(".") { text.removeLast() }
        } else if alternate, !text.contains(".") {
            text += "."
        }
        if isScientific { return text + "e" + parts[1] }
        return withFraction && !text.contains(".") ? text + ".0" : text
    }
}
