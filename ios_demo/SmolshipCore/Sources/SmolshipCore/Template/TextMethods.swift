extension Interpreter {
    static let textMethods: Set<String> = [
        "capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format", "format_map",
        "index", "isalnum",
        "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace",
        "istitle", "isupper",
        "join", "ljust", "lower", "lstrip", "maketrans", "partition", "removeprefix", "removesuffix", "replace",
        "rfind", "rindex", "rjust",
        "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title",
        "translate", "upper", "zfill",
    ]

    /// A method of str, or of Markup, which marks its results as safe and escapes what comes in.
    func method(_ name: String, of text: Text, isMarkup: Bool, _ arguments: Arguments) throws -> Value {
        try step(text.count / 64)
        func wrap(_ text: Text) -> Value { isMarkup ? .markup(text) : .string(text) }
        func list(_ parts: [Text]) throws -> Value {
            try claim(items: parts.count)
            try claim(text.count)
            return .list(try Items(parts.map(wrap)))
        }
        func incoming(_ value: Value) throws -> Text { isMarkup ? try escaped(value) : value.text! }
        let call = TextCall(name, arguments)
        switch name {
        case "upper": return wrap(try call.none { text.uppercased() })
        case "lower": return wrap(try call.none { text.lowercased() })
        case "capitalize": return wrap(try call.none { text.capitalized() })
        case "title": return wrap(try call.none { text.titled() })
        case "swapcase": return wrap(try call.none { text.swappedCase() })
        case "casefold": return wrap(try call.none { try text.casefolded() })
        case "strip", "lstrip", "rstrip":
            let set = try call.values(0...1).first.flatMap { $0.isNone ? nil : try call.string($0) }
            return wrap(text.stripped(set, left: name != "rstrip", right: name != "lstrip"))
        case "split", "rsplit":
            let values = try arguments.bind(name, ["sep", "maxsplit"])
            let separator = try values[0].flatMap { $0.isNone ? nil : try call.string($0) }
            let most = try values[1].map { try call.int($0) } ?? -1
            let limit = most < 0 ? Int.max : most
            guard let separator else {
                return try list(
                    name == "split" ? text.splitOnSpace(limit: limit) : text.splitOnSpaceFromRight(limit: limit))
            }
            guard !separator.isEmpty else { throw Fault.failed("ValueError: empty separator") }
            return try list(
                name == "split"
                    ? text.split(on: separator, limit: limit) : text.splitFromRight(on: separator, limit: limit))
        case "splitlines":
            let keep = try arguments.bind(name, ["keepends"])[0]
            return try list(text.lines(keepingEnds: try keep?.truth(self) ?? false))
        case "partition", "rpartition":
            let separator = try call.string(try call.values(1...1)[0])
            guard !separator.isEmpty else { throw Fault.failed("ValueError: empty separator") }
            let place =
                name == "partition" ? text.find(separator, 0, text.count) : text.findLast(separator, 0, text.count)
            guard let place else {
                return .tuple(try Items((name == "partition" ? [text, [], []] : [[], [], text]).map(wrap)))
            }
            return .tuple(
                try Items([Text(text[..<place]), separator, Text(text[(place + separator.count)...])].map(wrap)))
        case "replace":
            let values = try call.values(2...3)
            let (old, new) = (try call.string(values[0]), try call.string(values[1]))
            let most = try values.count == 3 ? call.int(values[2]) : -1
            let replacement = isMarkup ? try incoming(values[1]) : new
            return wrap(try text.replacing(old, with: replacement, limit: most < 0 ? .max : most) { try claim($0) })
        case "join":
            let parts = try self.list(try call.values(1...1)[0]).enumerated().map { place, value -> Text in
                if isMarkup { return try escaped(value) }
                guard let part = value.text else {
                    throw Fault.failed("TypeError: sequence item \(place): expected str instance, \(value.type) found")
                }
                return part
            }
            return wrap(try text.joining(parts) { try claim($0) })
        case "startswith", "endswith": return .bool(try starts(text, call, atEnd: name == "endswith"))
        case "find", "rfind", "index", "rindex", "count":
            let (part, start, end) = try call.search(text.count)
            if name == "count" { return .int(start > text.count ? 0 : text.places(of: part, start, end).count) }
            let place =
                start > text.count
                ? nil : name.hasPrefix("r") ? text.findLast(part, start, end) : text.find(part, start, end)
            guard place != nil || name.hasSuffix("find") else { throw Fault.failed("ValueError: substring not found") }
            return .int(place ?? -1)
        case "removeprefix", "removesuffix":
            let part = try call.string(try call.values(1...1)[0])
            if name == "removeprefix" { return wrap(text.starts(with: part) ? Text(text.dropFirst(part.count)) : text) }
            return wrap(
                !part.isEmpty && text.count >= part.count && Text(text.suffix(part.count)) == part
                    ? Text(text.dropLast(part.count)) : text)
        case "center", "ljust", "rjust", "zfill": return wrap(try padded(text, name, call, incoming))
        case "expandtabs":
            let size = try arguments.bind(name, ["tabsize"])[0].map { try call.int($0) } ?? 8
            return wrap(try expandingTabs(text, size))
        case "format": return wrap(try format(text, arguments, escaping: isMarkup))
        case "format_map":
            guard case .dict(let dict) = try call.values(1...1)[0] else {
                throw Fault.unsupported("format_map of what is no dict")
            }
            var named = Arguments()
            for (key, value) in zip(dict.keys, dict.values) {
                if let name = key.text { named.keywords.append((name.string, value)) }
            }
            return wrap(try format(text, named, escaping: isMarkup))
        case "isalpha", "isalnum", "isdecimal", "isdigit", "isnumeric", "isspace", "isprintable", "isascii", "islower",
            "isupper", "istitle",
            "isidentifier":
            return .bool(try call.none { try test(name, text) })
        case "striptags" where isMarkup: return .string(try call.none { try striptags(text) })
        default: throw Fault.unsupported("the method \(isMarkup ? "Markup" : "str").\(name)")
        }
    }

    private func test(_ name: String, _ text: Text) throws -> Bool {
        switch name {
        case "islower": return text.isLower
        case "isupper": return text.isUpper
        case "istitle": return text.isTitle
        case "isascii": return text.allSatisfy(\.isASCII)
        case "isprintable": return text.allSatisfy(\.isPrintable)
        case "isidentifier":
            return text.first.map { $0 == "_" || $0.properties.isXIDStart } == true
                && text.allSatisfy(\.properties.isXIDContinue)
        default: break
        }
        guard !text.isEmpty else { return false }
        switch name {
        case "isalpha": return text.allSatisfy(\.isAlphabetic)
        case "isalnum": return text.allSatisfy(\.isAlphanumeric)
        case "isdecimal": return text.allSatisfy(\.isDecimal)
        case "isdigit": return text.allSatisfy(\.isDigit)
        case "isnumeric": return text.allSatisfy(\.isNumeric)
        default: return text.allSatisfy(\.isSpace)
        }
    }

    private func starts(_ text: Text, _ call: TextCall, atEnd: Bool) throws -> Bool {
        let values = try call.values(1...3)
        let (start, end) = try call.bounds(Array(values.dropFirst()), text.count)
        let parts: [Value]
        if case .tuple(let items) = values[0] { parts = items.items } else { parts = [values[0]] }
        for part in parts {
            let part = try call.string(part)
            guard start <= end, start <= text.count, part.count <= end - start else { continue }
            let place = atEnd ? end - part.count : start
            if text[place..<(place + part.count)].elementsEqual(part) { return true }
        }
        return false
    }

    private func padded(_ text: Text, _ name: String, _ call: TextCall, _ incoming: (Value) throws -> Text) throws
        -> Text
    {
        let values = try call.values(1...(name == "zfill" ? 1 : 2))
        let width = try call.int(values[0])
        let fill: Text =
            try values.count == 2
            ? {
                _ = try call.string(values[1]); return try incoming(values[1])
            }() : [" "]
        guard fill.count == 1 else {
            throw Fault.failed("TypeError: The fill character must be exactly one character long")
        }
        let gap = width - text.count
        guard gap > 0 else { return text }
        try claim(width)
        switch name {
        case "ljust": return text + fill * gap
        case "rjust": return fill * gap + text
        case "center":
            let left = gap / 2 + (gap & width & 1)
            return fill * left + text + fill * (gap - left)
        default:
            let sign = text.first == "-" || text.first == "+" ? 1 : 0
            return text.prefix(sign) + ["0"] * gap + text.dropFirst(sign)
        }
    }

    private func expandingTabs(_ text: Text, _ size: Int) throws -> Text {
        let tabs = text.filter { $0 == "\t" }.count
        let (width, overflow) = tabs.multipliedReportingOverflow(by: max(size, 0))
        guard !overflow else { throw Fault.limit("tabs of a huge width") }
        try claim(text.count + width)
        var (result, column): (Text, Int) = ([], 0)
        for scalar in text {
            if scalar == "\t" {
                let gap = size > 0 ? size - column % size : 0
                result += [" "] * gap
                column += gap
            } else {
                result.append(scalar)
                column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
            }
        }
        return result
    }
}

/// A call of a method of str, whose arguments have no names.
struct TextCall {
    private let name: String
    private let arguments: Arguments

    init(_ name: String, _ arguments: Arguments) { (self.name, self.arguments) = (name, arguments) }

    func values(_ count: ClosedRange<Int>) throws -> [Value] {
        guard arguments.keywords.isEmpty else { throw Fault.failed("TypeError: \(name)() takes no keyword arguments") }
        guard count.contains(arguments.positional.count) else {
            throw Fault.failed(
                "TypeError: \(name) expected \(count.lowerBound) to \(count.upperBound) arguments, got \(arguments.positional.count)"
            )
        }
        return arguments.positional
    }

    func none<Result>(_ body: () throws -> Result) throws -> Result {
        _ = try values(0...0)
        return try body()
    }

    func string(_ value: Value) throws -> Text {
        guard let text = value.text else { throw Fault.failed("TypeError: \(name): str expected, not \(value.type)") }
        return text
    }

    func int(_ value: Value) throws -> Int {
        if case .big = value { throw Fault.failed("OverflowError: Python int too large to convert to C ssize_t") }
        guard let number = value.int else {
            throw Fault.failed("TypeError: '\(value.type)' object cannot be interpreted as an integer")
        }
        return number
    }

    /// What find, index and count look for, and where.
    func search(_ count: Int) throws -> (part: Text, start: Int, end: Int) {
        let values = try values(1...3)
        let (start, end) = try bounds(Array(values.dropFirst()), count)
        return (try string(values[0]), start, end)
    }

    func bounds(_ values: [Value], _ count: Int) throws -> (Int, Int) {
        func place(_ index: Int, _ missing: Int) throws -> Int {
            guard index < values.count, !values[index].isNone else { return missing }
            let value = try int(values[index])
            return value < 0 ? max(value + count, 0) : value
        }
        return (try place(0, 0), min(try place(1, count), count))
    }
}
