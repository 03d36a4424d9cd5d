/// Python's str.format within jinja's sandbox.
extension Interpreter {
    func format(_ text: Text, _ arguments: Arguments, escaping: Bool) throws -> Text {
        var numbering = Numbering()
        return try format(text, arguments, escaping, depth: 2, &numbering)
    }

    private struct Numbering { var next = 0, isManual = false }

    private func format(
        _ text: Text, _ arguments: Arguments, _ escaping: Bool, depth: Int, _ numbering: inout Numbering
    ) throws -> Text {
        guard depth >= 0 else { throw Fault.failed("ValueError: Max string recursion exceeded") }
        var (result, at): (Text, Int) = ([], 0)
        while at < text.count {
            let scalar = text[at]
            at += 1
            guard scalar == "{" || scalar == "}" else {
                result.append(scalar)
                continue
            }
            if at < text.count, text[at] == scalar {
                result.append(scalar)
                at += 1
                continue
            }
            guard scalar == "{" else { throw Fault.failed("ValueError: Single '}' encountered in format string") }
            let start = at
            var (open, colon, brackets): (Int, Int?, Bool) = (1, nil, false)
            while at < text.count {
                if colon == nil, text[at] == "[" { brackets = true } else if text[at] == "]" { brackets = false }
                if !brackets || colon != nil {
                    if text[at] == "{" { open += 1 } else if text[at] == "}" { open -= 1 }
                    if text[at] == ":", colon == nil, open == 1 { colon = at }
                }
                if open == 0 { break }
                at += 1
            }
            guard open == 0 else { throw Fault.failed("ValueError: expected '}' before end of string") }
            var name = Text(text[start..<(colon ?? at)])
            let inner = Text(colon.map { text[($0 + 1)..<at] } ?? [])
            at += 1
            let conversion = try self.conversion(&name)
            let value = try converted(try field(name, arguments, &numbering), conversion)
            let specification = try format(inner, arguments, escaping, depth: depth - 1, &numbering)
            result += try formatted(value, specification, escaping)
            try claim(result.count)
        }
        return result
    }

    /// Takes the conversion off a field's name.
    private func conversion(_ name: inout Text) throws -> Unicode.Scalar? {
        guard let place = name.lastIndex(of: "!") else { return nil }
        guard place == name.count - 2, "rsa".unicodeScalars.contains(name[place + 1]) else {
            throw Fault.failed("ValueError: Unknown conversion specifier")
        }
        defer { name = Text(name[..<place]) }
        return name[place + 1]
    }

    private func converted(_ value: Value, _ conversion: Unicode.Scalar?) throws -> Value {
        switch conversion {
        case nil: return value
        case "s": return .string(try str(value))
        case "a": throw Fault.unsupported("the conversion !a")
        default:
            var printer = Printer(limit: limits.size)
            try printer.repr(value)
            return .string(printer.text)
        }
    }

    private func field(_ name: Text, _ arguments: Arguments, _ numbering: inout Numbering) throws -> Value {
        let end = name.firstIndex { $0 == "." || $0 == "[" } ?? name.count
        var (first, at) = (Text(name[..<end]).string, end)
        if name.isEmpty {
            guard !numbering.isManual else {
                throw Fault.failed(
                    "ValueError: cannot switch from manual field specification to automatic field numbering")
            }
            first = String(numbering.next)
            numbering.next += 1
        } else if Int(first) != nil {
            guard numbering.next == 0 else {
                throw Fault.failed(
                    "ValueError: cannot switch from automatic field numbering to manual field specification")
            }
            numbering.isManual = true
        }
        var value: Value
        if let place = Int(first), first.allSatisfy(\.isNumber) {
            guard place < arguments.positional.count else {
                throw Fault.failed("IndexError: Replacement index \(place) out of range")
            }
            value = arguments.positional[place]
        } else {
            guard let found = arguments.keywords.first(where: { ExactString($0.name) == ExactString(first) }) else {
                throw Fault.failed("KeyError: '\(first)'")
            }
            value = found.value
        }
        while at < name.count {
            let isItem = name[at] == "["
            guard isItem || name[at] == "." else {
                throw Fault.failed("ValueError: Only '.' or '[' may follow ']' in format field specifier")
            }
            let stop = name[(at + 1)...].firstIndex { isItem ? $0 == "]" : $0 == "." || $0 == "[" } ?? name.count
            guard !isItem || stop < name.count else { throw Fault.failed("ValueError: Missing ']' in format string") }
            let part = Text(name[(at + 1)..<stop]).string
            guard !part.isEmpty else { throw Fault.failed("ValueError: Empty attribute in format string") }
            let place = part.allSatisfy { $0.isASCII && $0.isNumber } ? Int(part) : nil
            value = isItem ? try item(value, place.map { .int($0) } ?? .text(part)) : try attribute(value, part)
            at = isItem ? stop + 1 : stop
        }
        return value
    }

    private func formatted(_ value: Value, _ specification: Text, _ escaping: Bool) throws -> Text {
        guard escaping else { return try format(value, specification) }
        if case .markup(let text) = value {
            guard specification.isEmpty else {
                throw Fault.failed("ValueError: Unsupported format specification for Markup.")
            }
            return text
        }
        return try escaped(.string(try format(value, specification)))
    }

    /// Python's format() of one value.
    func format(_ value: Value, _ specification: Text) throws -> Text {
        if specification.isEmpty { return try str(value) }
        switch value {
        case .string, .markup, .int, .big, .bool, .float: break
        default: throw Fault.failed("TypeError: unsupported format string passed to \(value.type).__format__")
        }
        var specification = try FormatSpecification(specification)
        try claim(max(specification.width, specification.style.precision ?? 0))
        let text: String
        if let string = value.text {
            return try specification.padded(try specification.string(string), ordinary: "<")
        } else if case .float(let number) = value {
            text = try specification.number(number)
        } else {
            text = try specification.number(value)
        }
        return try specification.padded(Text(of: text), ordinary: ">")
    }
}

/// [[fill]align][sign][#][0][width][grouping][.precision][type]
private struct FormatSpecification {
    var fill: Unicode.Scalar = " "
    var align: Unicode.Scalar?
    var width = 0
    var style = NumberStyle()
    private var type: Unicode.Scalar?
    private var hasSign = false
    private var isZeroPadded = false

    init(_ text: Text) throws {
        var at = 0
        func peek() -> Unicode.Scalar? { at < text.count ? text[at] : nil }
        func take(_ set: String) -> Unicode.Scalar? {
            guard let scalar = peek(), set.unicodeScalars.contains(scalar) else { return nil }
            at += 1
            return scalar
        }
        func number() throws -> Int? {
            let digits = text[at...].prefix { $0.isASCII && $0.isDecimal }
            guard !digits.isEmpty else { return nil }
            at += digits.count
            guard digits.count < 10 else { throw Fault.limit("a width of \(digits.count) digits") }
            return Int(Text(digits).string)
        }
        var hasFill = false
        if text.count > 1, "<>=^".unicodeScalars.contains(text[1]) {
            (fill, align, at, hasFill) = (text[0], text[1], 2, true)
        } else {
            align = take("<>=^")
        }
        if let sign = take("+- ") { (style.sign, hasSign) = (Character(sign), true) }
        if peek() == "z" { throw Fault.unsupported("z in a format specification") }
        style.alternate = take("#") != nil
        if !hasFill, take("0") != nil {
            fill = "0"
            isZeroPadded = align == nil
        }
        width = try number() ?? 0
        style.grouping = take(",_").map { Character($0) }
        if take(".") != nil {
            guard let precision = try number() else {
                throw Fault.failed("ValueError: Format specifier missing precision")
            }
            style.precision = precision
        }
        type = peek()
        if type != nil { at += 1 }
        guard at == text.count else { throw Fault.failed("ValueError: Invalid format specifier") }
    }

    func string(_ text: Text) throws -> Text {
        guard type == nil || type == "s", !hasSign, !style.alternate, style.grouping == nil, align != "=" else {
            throw Fault.failed("ValueError: this format specifier is not for strings")
        }
        return style.precision.map { Text(text.prefix($0)) } ?? text
    }

    mutating func number(_ value: Value) throws -> String {
        switch type {
        case nil, "d", "n", "b", "o", "x", "X":
            guard style.precision == nil else {
                throw Fault.failed("ValueError: Precision not allowed in integer format specifier")
            }
            style.type = Character(type ?? "d")
            let isDecimal = type == nil || type == "d" || type == "n"
            guard style.grouping != "," || isDecimal, style.grouping == nil || type != "n" else {
                throw Fault.failed("ValueError: Cannot specify '\(style.grouping!)' with '\(style.type)'.")
            }
            return parts(style.whole(BigInt(value)!), size: isDecimal ? 3 : 4)
        case "c":
            guard !hasSign, let number = value.int, let scalar = UInt32(exactly: number).flatMap(Unicode.Scalar.init)
            else {
                throw Fault.failed("OverflowError: %c arg not in range")
            }
            return String(scalar)
        default: return try number(try value.double())
        }
    }

    mutating func number(_ value: Double) throws -> String {
        guard type == nil || "eEfFgGn%".unicodeScalars.contains(type!) else {
            throw Fault.failed("ValueError: Unknown format code '\(type!)' for a number")
        }
        style.type = Character(type == nil ? "r" : type == "n" ? "g" : type!)
        return parts(try style.float(value), size: 3)
    }

    private mutating func parts(_ parts: NumberParts, size: Int) -> String {
        let isInside = align == "=" || isZeroPadded
        if isInside, fill != "0" {
            let text = parts.text(grouping: style.grouping, size: size)
            let gap = String(repeating: String(fill), count: max(0, width - text.count))
            return parts.sign + parts.prefix + gap + text.dropFirst(parts.sign.count + parts.prefix.count)
        }
        return parts.text(grouping: style.grouping, size: size, zerosTo: isInside ? width : 0)
    }

    func padded(_ text: Text, ordinary: Unicode.Scalar) throws -> Text {
        let gap = max(0, width - text.count)
        switch align ?? ordinary {
        case "<": return text + [fill] * gap
        case "^": return [fill] * (gap / 2) + text + [fill] * (gap - gap / 2)
        default: return [fill] * gap + text
        }
    }
}
