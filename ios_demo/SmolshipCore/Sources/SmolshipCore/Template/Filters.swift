/// jinja's filters, and the tojson of transformers.
enum Filters {
    typealias Filter = @Sendable (Value, Arguments, Interpreter) throws -> Value

    private static let table = text.merging(numbers) { $1 }.merging(sequences) { $1 }.merging(lazy) { $1 }.merging(
        markup
    ) { $1 }
    private static let unsupported: Set<String> = ["pprint", "random", "urlize"]

    static let names = Set(table.keys).union(unsupported)

    static func apply(_ name: String, _ value: Value, _ arguments: Arguments, _ interpreter: Interpreter) throws
        -> Value
    {
        guard let filter = table[name] else {
            if unsupported.contains(name) { throw Fault.unsupported("the filter \(name)") }
            throw Fault.failed("TemplateRuntimeError: No filter named '\(name)' found.")
        }
        return try filter(value, arguments, interpreter)
    }

    /// jinja's soft_str: what is a string stays one, safe for HTML or not.
    static func soft(_ value: Value, _ interpreter: Interpreter) throws -> (text: Text, isMarkup: Bool) {
        (try interpreter.str(value), value.isMarkup)
    }

    static func wrap(_ text: Text, _ isMarkup: Bool) -> Value { isMarkup ? .markup(text) : .string(text) }

    static func bool(_ value: Value?, _ fallback: Bool, _ interpreter: Interpreter) throws -> Bool {
        try value?.truth(interpreter) ?? fallback
    }

    static func int(_ value: Value?, _ fallback: Int) throws -> Int {
        guard let value else { return fallback }
        if case .undefined(let undefined) = value { throw undefined.fault }
        guard let number = value.int else {
            throw Fault.failed("TypeError: '\(value.type)' object cannot be interpreted as an integer")
        }
        return number
    }

    /// The method of str of the same name, on whatever value.
    private static func method(_ name: String) -> Filter {
        { value, arguments, interpreter in
            let (text, isMarkup) = try soft(value, interpreter)
            return try interpreter.method(name, of: text, isMarkup: isMarkup, arguments)
        }
    }

    private static let text: [String: Filter] = [
        "upper": method("upper"), "lower": method("lower"), "capitalize": method("capitalize"),
        "trim": { value, arguments, interpreter in
            let chars = try arguments.bind("trim", ["chars"])[0]
            return try method("strip")(value, Arguments(chars.map { [$0] } ?? []), interpreter)
        },
        "center": { value, arguments, interpreter in
            let width = try arguments.bind("center", ["width"])[0] ?? .int(80)
            return try method("center")(value, Arguments([width]), interpreter)
        },
        "string": { value, arguments, interpreter in
            _ = try arguments.bind("string", [])
            let (text, isMarkup) = try soft(value, interpreter)
            return wrap(text, isMarkup)
        },
        "title": { value, arguments, interpreter in
            _ = try arguments.bind("title", [])
            let parts = wordBeginnings(try interpreter.str(value))
            return .string(parts.flatMap { Text($0.prefix(1)).uppercased() + Text($0.dropFirst()).lowercased() })
        },
        "replace": { value, arguments, interpreter in
            let values = try arguments.bind("replace", ["old", "new", "count"], required: 2)
            let (text, old, new) = (
                try interpreter.str(value), try interpreter.str(values[0]!), try interpreter.str(values[1]!)
            )
            let count = values[2].map { $0.isNone } ?? true ? -1 : try int(values[2], -1)
            return .string(
                try text.replacing(old, with: new, limit: count < 0 ? .max : count) { try interpreter.claim($0) })
        },
        "format": { value, arguments, interpreter in
            let (text, isMarkup) = try soft(value, interpreter)
            guard !arguments.keywords.isEmpty else {
                return try interpreter.percent(text, .tuple(try Items(arguments.positional)), isMarkup: isMarkup)
            }
            guard arguments.positional.isEmpty else {
                throw Fault.failed(
                    "FilterArgumentError: can't handle positional and keyword arguments at the same time")
            }
            let dict = Dict()
            for (name, value) in arguments.keywords { try dict.set(.text(name), value) }
            return try interpreter.percent(text, .dict(dict), isMarkup: isMarkup)
        },
        "indent": { value, arguments, interpreter in
            let values = try arguments.bind("indent", ["width", "first", "blank"])
            guard let text = value.text else {
                throw Fault.failed("TypeError: indent wants a string, not \(value.type)")
            }
            let width =
                values[0]?.text == nil ? [" "] * min(try int(values[0], 4), interpreter.limits.size) : values[0]!.text!
            let lines = (text + ["\n"]).lines()
            try interpreter.claim(text.count + lines.count * (width.count + 1))
            let blank = try bool(values[2], false, interpreter)
            var result: Text = try bool(values[1], false, interpreter) ? width : []
            for (place, line) in lines.enumerated() {
                if place > 0 { result += ["\n"] + (blank || !line.isEmpty ? width : []) }
                result += line
            }
            return wrap(result, value.isMarkup)
        },
        "truncate": { value, arguments, interpreter in
            let values = try arguments.bind("truncate", ["length", "killwords", "end", "leeway"])
            let end =
                try values[2].map { value -> Text in
                    guard let text = value.text else { throw Fault.failed("TypeError: truncate's end is no string") }
                    return text
                } ?? Text(of: "...")
            let length = try int(values[0], 255)
            let leeway = values[3]?.isNone ?? true ? 5 : try int(values[3], 5)
            guard length >= end.count, leeway >= 0 else {
                throw Fault.failed("AssertionError: expected length >= \(end.count), got \(length)")
            }
            guard let count = try interpreter.length(value) else {
                throw Fault.failed("TypeError: object of type '\(value.type)' has no len()")
            }
            if count - length <= leeway { return value }
            guard let text = value.text else {
                throw Fault.failed("TypeError: truncate wants a string, not \(value.type)")
            }
            var kept = Text(text.prefix(length - end.count))
            if try !bool(values[1], false, interpreter) { kept = kept.splitFromRight(on: [" "], limit: 1)[0] }
            return wrap(kept + end, value.isMarkup)
        },
        "wordcount": { value, arguments, interpreter in
            _ = try arguments.bind("wordcount", [])
            let text = try interpreter.str(value)
            return .int(text.indices.filter { text[$0].isWord && ($0 == 0 || !text[$0 - 1].isWord) }.count)
        },
        "wordwrap": { value, arguments, interpreter in
            let values = try arguments.bind(
                "wordwrap", ["width", "break_long_words", "wrapstring", "break_on_hyphens"])
            guard let text = value.text else {
                throw Fault.failed("TypeError: wordwrap wants a string, not \(value.type)")
            }
            let separator = values[2]?.isNone ?? true ? ["\n"] : values[2]!.text
            guard let separator else { throw Fault.failed("TypeError: wordwrap's wrapstring is no string") }
            let wrap = WordWrap(
                width: try int(values[0], 79), breaksWords: try bool(values[1], true, interpreter),
                breaksHyphens: try bool(values[3], true, interpreter))
            try interpreter.step(text.count)
            let lines = try text.lines().map { try separator.joining(try wrap.lines($0)) { try interpreter.claim($0) } }
            return .string(try separator.joining(lines) { try interpreter.claim($0) })
        },
        "tojson": { value, arguments, interpreter in
            let values = try arguments.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
            return .string(try JsonText(values, interpreter).text(value))
        },
        "urlencode": { value, arguments, interpreter in
            _ = try arguments.bind("urlencode", [])
            return .string(try urlencoded(value, interpreter))
        },
    ]

    /// Splits before and after each run of white space, -, (, {, [ and <.
    private static func wordBeginnings(_ text: Text) -> [Text] {
        var parts: [Text] = []
        var wasBreak: Bool?
        for scalar in text {
            let isBreak = scalar.isSpace || "-({[<".unicodeScalars.contains(scalar)
            if isBreak == wasBreak { parts[parts.count - 1].append(scalar) } else { parts.append([scalar]) }
            wasBreak = isBreak
        }
        return parts
    }

    private static func urlencoded(_ value: Value, _ interpreter: Interpreter) throws -> Text {
        func quoted(_ value: Value, query: Bool) throws -> Text {
            let text = try interpreter.str(value).string
            try interpreter.claim(text.utf8.count * 3)
            return Text(
                of: text.utf8.map { byte -> String in
                    let character = Unicode.Scalar(byte)
                    if character.isASCII, character.isAlphanumeric || "_.-~".unicodeScalars.contains(character) {
                        return String(character)
                    }
                    if character == "/", !query { return "/" }
                    if character == " ", query { return "+" }
                    return "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
                }.joined())
        }
        if value.text != nil || !Tests.isIterable(value) { return try quoted(value, query: false) }
        var pairs: [Value]
        if case .dict(let dict) = value {
            pairs = try interpreter.list(.view(DictView(dict, .items)))
        } else {
            pairs = try interpreter.list(value)
        }
        let parts = try pairs.map { pair -> Text in
            let items = try interpreter.list(pair)
            guard items.count == 2 else { throw Fault.failed("ValueError: urlencode wants pairs") }
            return try quoted(items[0], query: true) + ["="] + quoted(items[1], query: true)
        }
        return try Text(of: "&").joining(parts) { try interpreter.claim($0) }
    }
}
