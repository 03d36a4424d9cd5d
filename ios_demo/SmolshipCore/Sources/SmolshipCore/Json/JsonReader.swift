/// Bounds of what is read: JSON of bundles, plans and devices is untrusted.
public struct JsonLimits: Sendable {
    public var bytes: Int
    public var depth: Int

    public init(bytes: Int = 64 << 20, depth: Int = 200) {
        self.bytes = bytes
        self.depth = depth
    }
}

extension Json {
    /// The value of a text in UTF-8. Throws JsonError for anything else than RFC 8259's JSON, and for duplicate keys,
    /// lone surrogates, numbers beyond a double's range, and what is over the limits.
    public static func parse(_ bytes: some Collection<UInt8>, limits: JsonLimits = JsonLimits()) throws -> Json {
        guard bytes.count <= limits.bytes else {
            throw JsonError("\(bytes.count) bytes, at most \(limits.bytes) are read", at: 0)
        }
        return try Array(bytes).withUnsafeBufferPointer { buffer in
            var reader = JsonReader(bytes: buffer, depth: limits.depth)
            return try reader.document()
        }
    }

    public static func parse(_ text: String, limits: JsonLimits = JsonLimits()) throws -> Json {
        try parse(text.utf8, limits: limits)
    }
}

private struct JsonReader {
    let bytes: UnsafeBufferPointer<UInt8>
    var depth: Int
    var at = 0

    init(bytes: UnsafeBufferPointer<UInt8>, depth: Int) {
        self.bytes = bytes
        self.depth = depth
    }

    mutating func document() throws -> Json {
        let found = try value()
        skipSpace()
        guard at == bytes.count else { throw JsonError("something follows the value", at: at) }
        return found
    }

    private mutating func value() throws -> Json {
        skipSpace()
        switch peek() {
        case UInt8(ascii: "{"): return try nested { try $0.object() }
        case UInt8(ascii: "["): return try nested { try $0.array() }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case .some(let byte) where byte == UInt8(ascii: "-") || isDigit(byte): return try number()
        case .some: throw JsonError("a value is expected", at: at)
        case nil: throw JsonError("the text ends where a value is expected", at: at)
        }
    }

    private mutating func nested(_ read: (inout JsonReader) throws -> Json) throws -> Json {
        guard depth > 0 else { throw JsonError("nested too deep", at: at) }
        depth -= 1
        defer { depth += 1 }
        at += 1
        return try read(&self)
    }

    private mutating func object() throws -> Json {
        var found = JsonObject()
        skipSpace()
        if take(UInt8(ascii: "}")) { return .object(found) }
        while true {
            skipSpace()
            let start = at
            guard peek() == UInt8(ascii: "\"") else { throw JsonError("a key in quotes is expected", at: at) }
            let key = try string()
            guard found[key] == nil else {
                throw JsonError("the key \(key.debugDescription) is given twice", at: start)
            }
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw JsonError("':' is expected", at: at) }
            found[key] = try value()
            skipSpace()
            if take(UInt8(ascii: "}")) { return .object(found) }
            guard take(UInt8(ascii: ",")) else { throw JsonError("',' or '}' is expected", at: at) }
        }
    }

    private mutating func array() throws -> Json {
        var found: [Json] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return .array(found) }
        while true {
            found.append(try value())
            skipSpace()
            if take(UInt8(ascii: "]")) { return .array(found) }
            guard take(UInt8(ascii: ",")) else { throw JsonError("',' or ']' is expected", at: at) }
        }
    }

    private mutating func string() throws -> String {
        let start = at
        at += 1
        var text: [UInt8] = []
        var run = at  // start of the bytes that stand for themselves
        while true {
            guard let byte = peek() else { throw JsonError("the string has no end", at: start) }
            switch byte {
            case UInt8(ascii: "\""):
                text += bytes[run..<at]
                at += 1
                guard let exact = String(validating: text, as: UTF8.self) else {
                    throw JsonError("the string is not UTF-8", at: start)
                }
                return exact
            case UInt8(ascii: "\\"):
                text += bytes[run..<at]
                at += 1
                text += String(try escape()).utf8
                run = at
            case 0..<0x20:
                throw JsonError("a control character stands in a string", at: at)
            default:
                at += 1
            }
        }
    }

    private mutating func escape() throws -> Unicode.Scalar {
        let start = at - 1
        guard let letter = peek() else { throw JsonError("the string has no end", at: start) }
        at += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(letter)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw JsonError("an unknown escape", at: start)
        }
        let unit = try hex4()
        if let scalar = Unicode.Scalar(unit) { return scalar }
        guard unit < 0xDC00, take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else {
            throw JsonError("half of a surrogate pair", at: start)
        }
        let low = try hex4()
        guard (0xDC00..<0xE000).contains(low),
            let scalar = Unicode.Scalar(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
        else { throw JsonError("half of a surrogate pair", at: start) }
        return scalar
    }

    private mutating func hex4() throws -> UInt32 {
        var found: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = peek(), let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw JsonError("four hexadecimal digits are expected", at: at)
            }
            found = found << 4 + UInt32(digit)
            at += 1
        }
        return found
    }

    private mutating func number() throws -> Json {
        let start = at
        _ = take(UInt8(ascii: "-"))
        let whole = digits()
        guard whole > 0, whole == 1 || bytes[at - whole] != UInt8(ascii: "0") else {
            throw JsonError("not a number of JSON", at: start)
        }
        var isWhole = true
        if take(UInt8(ascii: ".")) {
            isWhole = false
            guard digits() > 0 else { throw JsonError("digits are expected after '.'", at: at) }
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            isWhole = false
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard digits() > 0 else { throw JsonError("digits are expected in the exponent", at: at) }
        }
        guard at - start <= 4300 else { throw JsonError("a number of \(at - start) digits", at: start) }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if isWhole { return Int(text).map(Json.int) ?? .bigInt(text) }
        guard let double = Double(text), double.isFinite else {
            throw JsonError("the number \(text) is beyond a double's range", at: start)
        }
        return .float(double)
    }

    private mutating func digits() -> Int {
        let start = at
        while let byte = peek(), isDigit(byte) { at += 1 }
        return at - start
    }

    private mutating func word(_ text: StaticString, _ value: Json) throws -> Json {
        let count = text.utf8CodeUnitCount
        let given = bytes[at..<min(at + count, bytes.count)]
        guard given.elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: count)) else {
            throw JsonError("a value is expected", at: at)
        }
        at += count
        return value
    }

    private func peek() -> UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        at += 1
        return true
    }

    private mutating func skipSpace() {
        while let byte = peek(), byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }
}
