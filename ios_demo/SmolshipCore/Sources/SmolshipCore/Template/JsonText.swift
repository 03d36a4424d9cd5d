/// Python's json.dumps of a template's values.
struct JsonText {
    private let ascii: Bool
    private let sorted: Bool
    private let indent: Text?
    private let between: Text
    private let colon: Text
    private let interpreter: Interpreter

    /// `values`: ensure_ascii, indent, separators, sort_keys.
    init(_ values: [Value?], _ interpreter: Interpreter) throws {
        self.interpreter = interpreter
        ascii = try values[0]?.truth(interpreter) ?? false
        sorted = try values[3]?.truth(interpreter) ?? false
        switch values[1] {
        case nil, .some(.none): indent = nil
        case .some(let value):
            if let text = value.text {
                indent = text
            } else {
                let width = try Filters.int(value, 0)
                try interpreter.claim(max(width, 0))
                indent = [" "] * width
            }
        }
        if let separators = values[2], !separators.isNone {
            let parts = try interpreter.list(separators).map { $0.text }
            guard parts.count == 2, let first = parts[0], let second = parts[1] else {
                throw Fault.failed("TypeError: separators are two strings")
            }
            (between, colon) = (first, second)
        } else {
            (between, colon) = (indent == nil ? [",", " "] : [","], [":", " "])
        }
    }

    func text(_ value: Value) throws -> Text {
        var text: Text = []
        try write(value, &text, 0)
        try interpreter.claim(text.count)
        return text
    }

    private func write(_ value: Value, _ text: inout Text, _ depth: Int) throws {
        try interpreter.step()
        guard text.count <= interpreter.limits.size else {
            throw Fault.limit("a text of more than \(interpreter.limits.size) characters")
        }
        switch value {
        case .string(let string), .markup(let string): text += quoted(string)
        case .list(let items), .tuple(let items):
            try list(items.items, "[", "]", &text, depth) { try write($0, &$1, depth + 1) }
        case .dict(let dict):
            var members = Array(zip(dict.keys, dict.values))
            if sorted {
                let order = try inOrder(members.indices.map { .int($0) }, keys: dict.keys, interpreter)
                members = order.map { members[$0.int!] }
            }
            try list(members, "{", "}", &text, depth) { member, text in
                text += quoted(try key(member.0))
                text += colon
                try write(member.1, &text, depth + 1)
            }
        default: text += try scalar(value)
        }
    }

    private func quoted(_ string: Text) -> Text {
        var quoted = ""
        Json.quote(string, into: &quoted, ascii: ascii)
        return Text(of: quoted)
    }

    private func scalar(_ value: Value) throws -> Text {
        switch value {
        case .none: return Text(of: "null")
        case .bool(let truth): return Text(of: truth ? "true" : "false")
        case .float(let number) where !number.isFinite:
            return Text(of: number.isNaN ? "NaN" : number < 0 ? "-Infinity" : "Infinity")
        case .int, .big, .float: return try interpreter.str(value)
        default: throw Fault.failed("TypeError: Object of type \(value.type) is not JSON serializable")
        }
    }

    private func key(_ key: Value) throws -> Text {
        switch key {
        case .string(let text), .markup(let text): return text
        case .none, .bool, .int, .big, .float: return try scalar(key)
        default: throw Fault.failed("TypeError: keys must be str, int, float, bool or None, not \(key.type)")
        }
    }

    private func list<Item>(
        _ items: [Item], _ open: Unicode.Scalar, _ close: Unicode.Scalar, _ text: inout Text, _ depth: Int,
        write: (Item, inout Text) throws -> Void
    ) throws {
        func newLine(_ depth: Int) {
            guard let indent, !items.isEmpty else { return }
            text.append("\n")
            for _ in 0..<depth { text += indent }
        }
        text.append(open)
        for (place, item) in items.enumerated() {
            if place > 0 { text += between }
            newLine(depth + 1)
            try write(item, &text)
        }
        newLine(depth)
        text.append(close)
    }
}
