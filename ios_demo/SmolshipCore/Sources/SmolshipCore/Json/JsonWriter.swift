extension Json {
    /// The text as Python's json.dumps writes it: `", "` and `": "` between parts or, with an indent, a member a line.
    /// Code points beyond ASCII stand for themselves. Throws JsonError for numbers that are not finite.
    public func text(indent: Int? = nil) throws -> String {
        var text = ""
        try write(to: &text, indent: indent, depth: 0)
        return text
    }

    /// The text in UTF-8.
    public func bytes(indent: Int? = nil) throws -> [UInt8] {
        Array(try text(indent: indent).utf8)
    }

    private func write(to text: inout String, indent: Int?, depth: Int) throws {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .int(let value): text += String(value)
        case .bigInt(let digits): text += digits
        case .float(let value):
            guard value.isFinite else { throw JsonError("the number \(value)") }
            text += pythonRepr(value)
        case .string(let value): Json.quote(value.unicodeScalars, into: &text)
        case .array(let values):
            try Json.list(values, "[", "]", to: &text, indent: indent, depth: depth) { value, text in
                try value.write(to: &text, indent: indent, depth: depth + 1)
            }
        case .object(let object):
            try Json.list(Array(object), "{", "}", to: &text, indent: indent, depth: depth) { member, text in
                Json.quote(member.0.unicodeScalars, into: &text)
                text += ": "
                try member.1.write(to: &text, indent: indent, depth: depth + 1)
            }
        }
    }

    private static func list<Item>(
        _ items: [Item], _ open: String, _ close: String, to text: inout String, indent: Int?, depth: Int,
        write: (Item, inout String) throws -> Void
    ) throws {
        text += open
        for (place, item) in items.enumerated() {
            if place > 0 { text += indent == nil ? ", " : "," }
            if let indent { text += "\n" + String(repeating: " ", count: indent * (depth + 1)) }
            try write(item, &text)
        }
        if let indent, !items.isEmpty { text += "\n" + String(repeating: " ", count: indent * depth) }
        text += close
    }

    /// Appends a string in quotes, escaped as json.dumps does it.
    static func quote(_ scalars: some Sequence<Unicode.Scalar>, into text: inout String, ascii: Bool = false) {
        text.unicodeScalars.append("\"")
        for scalar in scalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case "\u{8}": text += "\\b"
            case "\u{c}": text += "\\f"
            case _ where scalar.value < 0x20 || (ascii && scalar.value > 0x7E):
                for unit in UTF16.encode(scalar)! {
                    let digits = String(unit, radix: 16)
                    text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
                }
            default: text.unicodeScalars.append(scalar)
            }
        }
        text.unicodeScalars.append("\"")
    }
}

/// A double as Python's repr writes it: the fewest digits that give it back, an exponent from 1e16 on and below 1e-4.
func pythonRepr(_ value: Double) -> String {
    if value.isNaN { return "nan" }
    if value.isInfinite { return value < 0 ? "-inf" : "inf" }
    let sign = value.sign == .minus ? "-" : ""
    let (digits, point) = shortestDigits(value.magnitude)
    if point > 16 || point < -3 {
        let exponent = point - 1
        let tail = String(digits.dropFirst())
        let size = abs(exponent) < 10 ? "0\(abs(exponent))" : "\(abs(exponent))"
        return sign + String(digits.prefix(1)) + (tail.isEmpty ? "" : "." + tail) + (exponent < 0 ? "e-" : "e+") + size
    }
    if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + digits }
    if digits.count <= point { return sign + digits + String(repeating: "0", count: point - digits.count) + ".0" }
    return sign + digits.prefix(point) + "." + digits.dropFirst(point)
}

/// The fewest decimal digits that give a finite, not negative double back, and where the point is: 0.ddd × 10^point.
func shortestDigits(_ value: Double) -> (digits: String, point: Int) {
    if value == 0 { return ("0", 1) }
    let parts = "\(value)".split(separator: "e")  // Swift's own description has the fewest digits
    let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
    let fraction = mantissa.count > 1 ? mantissa[1] : ""
    let all = mantissa[0] + fraction
    let leading = all.prefix { $0 == "0" }.count
    var digits = String(all.dropFirst(leading))
    while digits.hasSuffix("0") { digits.removeLast() }
    let exponent = parts.count > 1 ? Int(parts[1])! : 0
    return (digits, mantissa[0].count - leading + exponent)
}
