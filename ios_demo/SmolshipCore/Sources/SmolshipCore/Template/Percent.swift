/// Python's % of strings.
extension Interpreter {
    func percent(_ format: Text, _ right: Value, isMarkup: Bool) throws -> Value {
        var reader = PercentReader(format: format, right: right)
        var result: Text = []
        while let piece = reader.literal() {
            result += piece
            guard reader.hasConversion else { break }
            result += try reader.conversion(self, isMarkup: isMarkup)
            try claim(result.count)
        }
        guard reader.allUsed else {
            throw Fault.failed("TypeError: not all arguments converted during string formatting")
        }
        return isMarkup ? .markup(result) : .string(result)
    }
}

private struct PercentReader {
    let format: Text
    private let arguments: [Value]
    private let mapping: Value?
    private var used = 0
    private var at = 0
    private(set) var hasConversion = false

    init(format: Text, right: Value) {
        self.format = format
        switch right {
        case .tuple(let items): (arguments, mapping) = (items.items, nil)
        case .dict, .list, .range, .undefined: (arguments, mapping) = ([right], right)
        default: (arguments, mapping) = ([right], nil)
        }
    }

    var allUsed: Bool { used >= arguments.count || mapping != nil }

    /// The text up to the next conversion; nil at the end.
    mutating func literal() -> Text? {
        guard at < format.count else { return nil }
        let start = at
        while at < format.count, format[at] != "%" { at += 1 }
        hasConversion = at < format.count
        return Text(format[start..<at])
    }

    private mutating func next() throws -> Value {
        guard used < arguments.count else { throw Fault.failed("TypeError: not enough arguments for format string") }
        used += 1
        return arguments[used - 1]
    }

    private mutating func peek() throws -> Unicode.Scalar {
        guard at < format.count else { throw Fault.failed("ValueError: incomplete format") }
        return format[at]
    }

    mutating func conversion(_ interpreter: Interpreter, isMarkup: Bool) throws -> Text {
        at += 1
        if try peek() == "%" {
            at += 1
            return ["%"]
        }
        let key = try self.key(interpreter)
        var (flags, style) = (Set<Unicode.Scalar>(), NumberStyle())
        while "#0- +".unicodeScalars.contains(try peek()) {
            flags.insert(try peek())
            at += 1
        }
        var width = try number() ?? 0
        if width < 0 {
            width = -width
            flags.insert("-")
        }
        if try peek() == "." {
            at += 1
            style.precision = max(try number() ?? 0, 0)
        }
        if "hlL".unicodeScalars.contains(try peek()) { at += 1 }
        let type = try peek()
        at += 1
        style.alternate = flags.contains("#")
        style.sign = flags.contains("+") ? "+" : flags.contains(" ") ? " " : "-"
        style.type = Character(type)
        let value = try key ?? next()
        try interpreter.claim(max(width, style.precision ?? 0))
        let zeros = flags.contains("0") && !flags.contains("-") ? width : 0
        let text: Text
        switch type {
        case "s", "r", "a":
            var shown =
                type == "s" ? try interpreter.str(value) : try represented(value, interpreter, ascii: type == "a")
            if isMarkup { shown = try interpreter.escaped(type == "s" ? value : .string(shown)) }
            text = style.precision.map { Text(shown.prefix($0)) } ?? shown
        case "c": text = try character(value)
        case "d", "i", "u", "o", "x", "X":
            text = Text(of: try whole(value, style, type).text(grouping: nil, zerosTo: zeros))
        case "e", "E", "f", "F", "g", "G":
            if case .undefined(let undefined) = value { throw undefined.fault }
            text = Text(of: try style.float(try value.double()).text(grouping: nil, zerosTo: zeros))
        default: throw Fault.failed("ValueError: unsupported format character '\(type)'")
        }
        let gap: Text = [" "] * (width - text.count)
        return flags.contains("-") ? text + gap : gap + text
    }

    private mutating func key(_ interpreter: Interpreter) throws -> Value? {
        guard try peek() == "(" else { return nil }
        guard let mapping else { throw Fault.failed("TypeError: format requires a mapping") }
        var (depth, name): (Int, Text) = (1, [])
        at += 1
        while true {
            let scalar = try peek()
            at += 1
            if scalar == "(" { depth += 1 } else if scalar == ")" { depth -= 1 }
            if depth == 0 { break }
            name.append(scalar)
        }
        switch mapping {
        case .undefined(let undefined): throw undefined.fault
        case .dict(let dict):
            guard let value = try dict.value(.string(name)) else { throw Fault.failed("KeyError: '\(name.string)'") }
            return value
        default: throw Fault.failed("TypeError: indices must be integers or slices, not str")
        }
    }

    private mutating func number() throws -> Int? {
        if try peek() == "*" {
            at += 1
            guard let value = try next().int else { throw Fault.failed("TypeError: * wants int") }
            guard abs(value) <= 1 << 31 else { throw Fault.limit("a width of more than \(1 << 31)") }
            return value
        }
        var value: Int?
        while let digit = try peek().properties.numericType == .decimal && peek().isASCII ? Int(peek().value) - 48 : nil
        {
            value = (value ?? 0) * 10 + digit
            guard value! <= 1 << 31 else { throw Fault.limit("a width of more than \(1 << 31)") }
            at += 1
        }
        return value
    }

    private func represented(_ value: Value, _ interpreter: Interpreter, ascii: Bool) throws -> Text {
        if ascii, let text = value.text, !value.isMarkup { return quoted(text, ascii: true) }
        var printer = Printer(limit: interpreter.limits.size)
        try printer.repr(value)
        guard !ascii || printer.text.allSatisfy(\.isASCII) else { throw Fault.unsupported("%a of this value") }
        return printer.text
    }

    private func character(_ value: Value) throws -> Text {
        if let text = value.text {
            guard text.count == 1 else { throw Fault.failed("TypeError: %c requires int or char") }
            return text
        }
        guard let number = value.int else { throw Fault.failed("TypeError: %c requires int or char") }
        guard let scalar = UInt32(exactly: number).flatMap(Unicode.Scalar.init) else {
            throw Fault.failed("OverflowError: %c arg not in range")
        }
        return [scalar]
    }

    private func whole(_ value: Value, _ style: NumberStyle, _ type: Unicode.Scalar) throws -> NumberParts {
        var number = BigInt(value)
        if case .float(let double) = value, "diu".unicodeScalars.contains(type) {
            guard double.isFinite else {
                throw Fault.failed("ValueError: cannot convert float \(pythonRepr(double)) to integer")
            }
            number = BigInt(double.rounded(.towardZero))
        }
        if case .undefined(let undefined) = value { throw undefined.fault }
        guard let number else {
            throw Fault.failed("TypeError: %\(type) format: a real number is required, not \(value.type)")
        }
        var parts = style.whole(number)
        parts.digits = String(repeating: "0", count: max(0, (style.precision ?? 0) - parts.digits.count)) + parts.digits
        return parts
    }
}
