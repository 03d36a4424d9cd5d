extension Filters {
    /// What is looked up in each item: names joined by points; whole numbers are places.
    struct Path {
        let parts: [Value]

        init(_ attribute: Value?) {
            guard let attribute, !attribute.isNone else {
                parts = []
                return
            }
            guard let text = attribute.text else {
                parts = [attribute]
                return
            }
            parts = text.split(on: ["."], limit: .max).map { part in
                if !part.isEmpty, part.allSatisfy(\.isDecimal), let place = BigInt(digits: part.string) {
                    return place.value
                }
                return .string(part)
            }
        }

        func value(in item: Value, fallback: Value? = nil, _ interpreter: Interpreter) throws -> Value {
            try interpreter.step()
            var item = item
            for part in parts {
                item = try interpreter.item(item, part)
                if item.isUndefined, let fallback, !fallback.isNone { item = fallback }
            }
            return item
        }
    }

    /// Small letters for strings, as filters compare them unless told otherwise.
    static func key(_ value: Value, caseSensitive: Bool) -> Value {
        guard !caseSensitive, let text = value.text else { return value }
        return .string(text.lowercased())
    }

    static func attributes(of value: Value, _ attribute: Value?, _ interpreter: Interpreter) throws -> [Value] {
        let items = try interpreter.list(value)
        guard let attribute, !attribute.isNone else { return items }
        let path = Path(attribute)
        return try items.map { try path.value(in: $0, interpreter) }
    }

    static let sequences: [String: Filter] = [
        "length": length, "count": length,
        "first": { value, arguments, interpreter in
            _ = try arguments.bind("first", [])
            return try interpreter.iterate(value).next() ?? .undefined(Undefined("No first item, sequence was empty."))
        },
        "last": { value, arguments, interpreter in
            _ = try arguments.bind("last", [])
            return try reversed(value, interpreter).next() ?? .undefined(Undefined("No last item, sequence was empty."))
        },
        "list": { value, arguments, interpreter in
            _ = try arguments.bind("list", [])
            return .list(try Items(try interpreter.list(value)))
        },
        "reverse": { value, arguments, interpreter in
            _ = try arguments.bind("reverse", [])
            if let text = value.text { return wrap(Text(text.reversed()), value.isMarkup) }
            do { return .iterator(try reversed(value, interpreter)) } catch let fault as Fault
                where fault.kind == .failed
            {
                return .list(try Items(try interpreter.list(value).reversed()))
            }
        },
        "join": { value, arguments, interpreter in
            let values = try arguments.bind("join", ["d", "attribute"])
            let separator = try values[0].map { try interpreter.str($0) } ?? []
            let parts = try attributes(of: value, values[1], interpreter).map { try interpreter.str($0) }
            return .string(try separator.joining(parts) { try interpreter.claim($0) })
        },
        "sort": { value, arguments, interpreter in
            let values = try arguments.bind("sort", ["reverse", "case_sensitive", "attribute"])
            let items = try interpreter.list(value)
            let (reverse, exact) = (try bool(values[0], false, interpreter), try bool(values[1], false, interpreter))
            let paths =
                values[2]?.text.map { $0.split(on: [","], limit: .max).map { Path(.string($0)) } } ?? [Path(values[2])]
            let keys = try items.map { item in
                try Value.list(Items(try paths.map { key(try $0.value(in: item, interpreter), caseSensitive: exact) }))
            }
            return .list(try Items(try inOrder(items, keys: keys, reverse: reverse, interpreter)))
        },
        "dictsort": { value, arguments, interpreter in
            let values = try arguments.bind("dictsort", ["case_sensitive", "by", "reverse"])
            if case .undefined(let undefined) = value { throw undefined.fault }
            guard case .dict(let dict) = value else {
                throw Fault.failed("AttributeError: '\(value.type)' object has no attribute 'items'")
            }
            let by = values[1]?.text?.string ?? (values[1] == nil ? "key" : "")
            guard by == "key" || by == "value" else {
                throw Fault.failed("FilterArgumentError: You can only sort by either \"key\" or \"value\"")
            }
            let exact = try bool(values[0], false, interpreter)
            let items = try interpreter.list(.view(DictView(dict, .items)))
            let keys = (by == "key" ? dict.keys : dict.values).map { key($0, caseSensitive: exact) }
            return .list(
                try Items(try inOrder(items, keys: keys, reverse: try bool(values[2], false, interpreter), interpreter))
            )
        },
        "min": { try extreme($0, $1, "min", $2) { try less($0, $1) } },
        "max": { try extreme($0, $1, "max", $2) { try less($1, $0) } },
        "groupby": { value, arguments, interpreter in
            let values = try arguments.bind("groupby", ["attribute", "default", "case_sensitive"], required: 1)
            let (path, exact) = (Path(values[0]), try bool(values[2], false, interpreter))
            func found(_ item: Value) throws -> Value { try path.value(in: item, fallback: values[1], interpreter) }
            let items = try interpreter.list(value)
            let ordered = try inOrder(
                items, keys: try items.map { key(try found($0), caseSensitive: exact) }, interpreter)
            var groups: [(key: Value, items: [Value])] = []
            for item in ordered {
                let own = key(try found(item), caseSensitive: exact)
                if let last = groups.last, try contains([last.key], own) {
                    groups[groups.count - 1].items.append(item)
                } else {
                    groups.append((own, [item]))
                }
            }
            return .list(
                try Items(
                    try groups.map { group in
                        let shown = exact ? group.key : try found(group.items[0])
                        return .tuple(try Items([shown, .list(try Items(group.items))], fields: ["grouper", "list"]))
                    }))
        },
        "default": fallback, "d": fallback,
        "attr": { value, arguments, interpreter in
            guard let name = try arguments.bind("attr", ["name"], required: 1)[0]!.text else {
                throw Fault.failed("TypeError: attribute name must be string")
            }
            return try interpreter.attributeAlone(value, name.string)
        },
        "xmlattr": { value, arguments, interpreter in
            let autospace = try bool(try arguments.bind("xmlattr", ["autospace"])[0], true, interpreter)
            if case .undefined(let undefined) = value { throw undefined.fault }
            guard case .dict(let dict) = value else {
                throw Fault.failed("AttributeError: '\(value.type)' object has no attribute 'items'")
            }
            var parts: [Text] = []
            for (key, value) in zip(dict.keys, dict.values) where !value.isNone && !value.isUndefined {
                guard let name = key.text,
                    !name.contains(where: {
                        $0.isASCII && $0.isSpace && $0.value < 0x1C || " />=".unicodeScalars.contains($0)
                    })
                else {
                    throw Fault.failed("ValueError: Invalid character in attribute name")
                }
                parts.append(try interpreter.escaped(key) + ["=", "\""] + interpreter.escaped(value) + ["\""])
            }
            let text = try Text(of: " ").joining(parts) { try interpreter.claim($0) }
            return .string(autospace && !text.isEmpty ? [" "] + text : text)
        },
    ]

    private static let length: Filter = { value, arguments, interpreter in
        guard arguments.keywords.isEmpty, arguments.positional.isEmpty else {
            throw Fault.failed("TypeError: len() takes exactly one argument")
        }
        guard let length = try interpreter.length(value) else {
            throw Fault.failed("TypeError: object of type '\(value.type)' has no len()")
        }
        return .int(length)
    }

    private static let fallback: Filter = { value, arguments, interpreter in
        let values = try arguments.bind("default", ["default_value", "boolean"])
        let isMissing = try value.isUndefined || (bool(values[1], false, interpreter) && !value.truth(interpreter))
        return isMissing ? values[0] ?? .empty : value
    }

    /// Python's reversed().
    private static func reversed(_ value: Value, _ interpreter: Interpreter) throws -> Generator {
        func from(_ count: Int, _ item: @escaping (Int) throws -> Value) throws -> Generator {
            var place = count
            return try Generator("reversed", over: value.depth) {
                guard place > 0 else { return nil }
                place -= 1
                return try item(place)
            }
        }
        switch value {
        case .string(let text), .markup(let text):
            return try from(text.count) { value.isMarkup ? .markup([text[$0]]) : .string([text[$0]]) }
        case .list(let items), .tuple(let items): return try from(items.items.count) { items.items[$0] }
        case .dict(let dict): return try from(dict.count) { dict.keys[$0] }
        case .view(let view): return try from(view.dict.count) { try view.item($0) }
        case .range(let range): return try from(range.count) { .int(range.item($0)) }
        case .undefined: return try from(0) { _ in .none }  // it has a length and items of its own
        default: throw Fault.failed("TypeError: '\(value.type)' object is not reversible")
        }
    }

    private static func extreme(
        _ value: Value, _ arguments: Arguments, _ name: String, _ interpreter: Interpreter,
        _ isBetter: (Value, Value) throws -> Bool
    ) throws -> Value {
        let values = try arguments.bind(name, ["case_sensitive", "attribute"])
        let (exact, path) = (try bool(values[0], false, interpreter), Path(values[1]))
        let items = try interpreter.list(value)
        guard var best = items.first else { return .undefined(Undefined("No aggregated item, sequence was empty.")) }
        var bestKey = key(try path.value(in: best, interpreter), caseSensitive: exact)
        for item in items.dropFirst() {
            let own = key(try path.value(in: item, interpreter), caseSensitive: exact)
            if try isBetter(own, bestKey) { (best, bestKey) = (item, own) }
        }
        return best
    }
}
