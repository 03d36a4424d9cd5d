extension Interpreter {
    /// A value as text for HTML: what is marked as safe stays as it is.
    func escaped(_ value: Value) throws -> Text {
        if case .markup(let text) = value { return text }
        return try escaped(text: try str(value))
    }

    func escaped(text: Text) throws -> Text {
        var result: Text = []
        for scalar in text {
            switch scalar {
            case "&": result += Text(of: "&amp;")
            case "<": result += Text(of: "&lt;")
            case ">": result += Text(of: "&gt;")
            case "'": result += Text(of: "&#39;")
            case "\"": result += Text(of: "&#34;")
            default: result.append(scalar)
            }
        }
        try claim(result.count)
        return result
    }

    /// The text of HTML: without tags, its white space as single spaces.
    func striptags(_ text: Text) throws -> Text {
        var (kept, at): (Text, Int) = ([], 0)
        while let start = text.find(["<"], at, text.count) {
            let isComment = text[start...].starts(with: Text(of: "<!--"))
            let end =
                isComment
                ? text.find(Text(of: "-->"), start + 4, text.count).map { $0 + 3 }
                : text.find([">"], start, text.count).map { $0 + 1 }
            guard let end else { break }
            kept += text[at..<start]
            at = end
        }
        return try unescaped(Text(of: " ").joining((kept + text[at...]).splitOnSpace()) { try claim($0) })
    }

    private func unescaped(_ text: Text) throws -> Text {
        let known: [(Text, Unicode.Scalar)] = [
            (Text(of: "&lt;"), "<"), (Text(of: "&gt;"), ">"), (Text(of: "&amp;"), "&"), (Text(of: "&quot;"), "\""),
            (Text(of: "&#34;"), "\""), (Text(of: "&#39;"), "'"),
        ]
        var (result, at): (Text, Int) = ([], 0)
        while at < text.count {
            if text[at] == "&", at + 1 < text.count, !" <&;".unicodeScalars.contains(text[at + 1]) {
                guard let (entity, scalar) = known.first(where: { text[at...].starts(with: $0.0) }) else {
                    throw Fault.unsupported("this entity of HTML")
                }
                result.append(scalar)
                at += entity.count
            } else {
                result.append(text[at])
                at += 1
            }
        }
        return result
    }
}

extension Filters {
    static let markup: [String: Filter] = [
        "e": escape, "escape": escape,
        "forceescape": { value, arguments, interpreter in
            _ = try arguments.bind("forceescape", [])
            return .markup(try interpreter.escaped(text: try interpreter.str(value)))
        },
        "safe": { value, arguments, interpreter in
            _ = try arguments.bind("safe", [])
            return .markup(try interpreter.str(value))
        },
        "striptags": { value, arguments, interpreter in
            _ = try arguments.bind("striptags", [])
            return .string(try interpreter.striptags(try interpreter.str(value)))
        },
    ]

    private static let escape: Filter = { value, arguments, interpreter in
        _ = try arguments.bind("escape", [])
        return .markup(try interpreter.escaped(value))
    }
}
