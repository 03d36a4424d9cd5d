/// Writes values as Python's str() and repr() do, into a text of limited size.
struct Printer {
    private(set) var text: Text = []
    private let limit: Int
    private var inside: Set<ObjectIdentifier> = []  // objects that are being printed
    private var depth = 0

    init(limit: Int) { self.limit = limit }

    mutating func write(_ string: String) throws {
        text.append(contentsOf: string.unicodeScalars)
        try check()
    }

    mutating func write(_ part: Text) throws {
        text += part
        try check()
    }

    private func check() throws {
        guard text.count <= limit else { throw Fault.limit("a text of more than \(limit) characters") }
    }

    mutating func str(_ value: Value) throws {
        switch value {
        case .undefined: break
        case .string(let text), .markup(let text): try write(text)
        default: try repr(value)
        }
    }

    mutating func repr(_ value: Value) throws {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Value.maximalDepth else {
            throw Fault.limit("values nested more than \(Value.maximalDepth) deep")
        }
        switch value {
        case .undefined: try write("Undefined")
        case .none: try write("None")
        case .bool(let value): try write(value ? "True" : "False")
        case .int(let value): try write(String(value))
        case .big(let value):
            let digits = value.digits()
            guard digits.count <= 4300 + (value.negative ? 1 : 0) else {
                throw Fault.failed("ValueError: a number of more than 4300 digits")
            }
            try write(digits)
        case .float(let value): try write(pythonRepr(value))
        case .string(let text): try write(quoted(text))
        case .markup(let text):
            try write("Markup(")
            try write(quoted(text))
            try write(")")
        case .list(let items):
            try write("[")
            try list(items.items) { try $0.repr($1) }
            try write("]")
        case .tuple(let items):
            try write("(")
            try list(items.items) { try $0.repr($1) }
            try write(items.items.count == 1 ? ",)" : ")")
        case .dict(let dict): try self.dict(dict)
        case .range(let range):
            try write("range(\(range.start), \(range.stop)" + (range.step == 1 ? ")" : ", \(range.step))"))
        case .view(let view):
            try write("\(value.type)([")
            try list(0..<view.dict.count) { try $0.repr(try view.item($1)) }
            try write("])")
        case .iterator: throw Fault.unsupported("printing a \(value.type), which has an address in memory")
        case .object(let object):
            guard inside.insert(ObjectIdentifier(object)).inserted else { return try write("<\(object.type) {...}>") }
            guard try object.printed(&self) else {
                throw Fault.unsupported("printing a \(object.type), which has an address in memory")
            }
            inside.remove(ObjectIdentifier(object))
        }
    }

    mutating func dict(_ dict: Dict) throws {
        try write("{")
        try list(0..<dict.count) {
            try $0.repr(dict.keys[$1])
            try $0.write(": ")
            try $0.repr(dict.values[$1])
        }
        try write("}")
    }

    private mutating func list<Items: Collection>(_ items: Items, _ each: (inout Printer, Items.Element) throws -> Void)
        throws
    {
        var first = true
        for item in items {
            if !first { try write(", ") }
            first = false
            try each(&self, item)
        }
    }
}

/// A string as Python's repr writes it.
func quoted(_ text: Text, ascii: Bool = false) -> Text {
    let quote: Unicode.Scalar = text.contains("'") && !text.contains("\"") ? "\"" : "'"
    var result: Text = [quote]
    for scalar in text {
        switch scalar {
        case "\\", quote: result += ["\\", scalar]
        case "\n": result += Text(of: "\\n")
        case "\r": result += Text(of: "\\r")
        case "\t": result += Text(of: "\\t")
        default:
            if scalar.isPrintable && (!ascii || scalar.isASCII) {
                result.append(scalar)
            } else {
                let digits = String(scalar.value, radix: 16)
                let (letter, size) = scalar.value < 0x100 ? ("x", 2) : scalar.value < 0x10000 ? ("u", 4) : ("U", 8)
                result += Text(of: "\\" + letter + String(repeating: "0", count: size - digits.count) + digits)
            }
        }
    }
    return result + [quote]
}

extension Unicode.Scalar {
    var isPrintable: Bool {
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
        case .spaceSeparator: self == " "
        default: true
        }
    }

    /// Python's str.isspace.
    var isSpace: Bool {
        switch value {
        case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
        default: false
        }
    }

    /// Where Python's str.splitlines splits.
    var isLineBreak: Bool {
        switch value {
        case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }
}
