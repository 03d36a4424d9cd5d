extension Filters {
    /// Filters that give generators: each item is made when it is asked for.
    static let lazy: [String: Filter] = [
        "map": { value, arguments, interpreter in
            try generator(value, interpreter) {
                let change = try mapping(arguments, interpreter)
                return { try change($0) }
            }
        },
        "select": { try selected($0, $1, $2, keep: true, byAttribute: false) },
        "reject": { try selected($0, $1, $2, keep: false, byAttribute: false) },
        "selectattr": { try selected($0, $1, $2, keep: true, byAttribute: true) },
        "rejectattr": { try selected($0, $1, $2, keep: false, byAttribute: true) },
        "items": { value, arguments, interpreter in
            _ = try arguments.bind("items", [])
            var source: Generator?
            return .iterator(
                try Generator("generator", over: value.depth) {
                    if value.isUndefined { return nil }
                    guard case .dict(let dict) = value else {
                        throw Fault.failed("TypeError: Can only get item pairs from a mapping.")
                    }
                    if source == nil { source = try interpreter.iterate(.view(DictView(dict, .items))) }
                    return try source!.next()
                })
        },
        "unique": { value, arguments, interpreter in
            let values = try arguments.bind("unique", ["case_sensitive", "attribute"])
            let (exact, path) = (try bool(values[0], false, interpreter), Path(values[1]))
            var seen: Set<Key> = []
            return try generator(value, interpreter, ifTrue: false) {
                { item in
                    seen.insert(try Key(key(try path.value(in: item, interpreter), caseSensitive: exact))).inserted
                        ? item : nil
                }
            }
        },
        "batch": { value, arguments, interpreter in
            let values = try arguments.bind("batch", ["linecount", "fill_with"], required: 1)
            let (size, fill) = (values[0]!, values[1] ?? .none)
            var source: Generator?
            return .iterator(
                try Generator("generator", over: value.depth) {
                    if source == nil { source = try interpreter.iterate(value) }
                    var row: [Value] = []
                    // Python compares the row's length with whatever it was given.
                    while try row.isEmpty || !equal(.int(row.count), size), let item = try source!.next() {
                        row.append(item)
                    }
                    guard !row.isEmpty else { return nil }
                    if !fill.isNone, try less(.int(row.count), size) {
                        let missing = try int(size, 0) - row.count
                        try interpreter.claim(items: missing)
                        row += Array(repeating: fill, count: missing)
                    }
                    return .list(try Items(row))
                })
        },
        "slice": { value, arguments, interpreter in
            let values = try arguments.bind("slice", ["slices", "fill_with"], required: 1)
            let (count, fill) = (try int(values[0], 0), values[1] ?? .none)
            var (items, turn): ([Value]?, Int) = (nil, 0)
            return .iterator(
                try Generator("generator", over: value.depth) {
                    if items == nil { items = try interpreter.list(value) }
                    guard count != 0 else {
                        throw Fault.failed("ZeroDivisionError: integer division or modulo by zero")
                    }
                    guard turn < count, let all = items else { return nil }
                    let (size, extra) = all.count.quotientAndRemainder(dividingBy: count)
                    let start = turn * size + min(turn, extra)
                    var part = Array(all[start..<(start + size + (turn < extra ? 1 : 0))])
                    if !fill.isNone, turn >= extra { part.append(fill) }
                    turn += 1
                    return .list(try Items(part))
                })
        },
    ]

    /// A generator over a value's items: `prepare` runs at its first step, and nothing where the value is not true.
    private static func generator(
        _ value: Value, _ interpreter: Interpreter, ifTrue: Bool = true,
        _ prepare: @escaping () throws -> (Value) throws -> Value?
    ) throws -> Value {
        var (source, change): (Generator?, ((Value) throws -> Value?)?) = (nil, nil)
        return .iterator(
            try Generator("generator", over: value.depth) {
                if source == nil {
                    if ifTrue, try !value.truth(interpreter) { return nil }
                    change = try prepare()
                    source = try interpreter.iterate(value)
                }
                while let item = try source!.next() {
                    try interpreter.step()
                    if let changed = try change!(item) { return changed }
                }
                return nil
            })
    }

    private static func mapping(_ arguments: Arguments, _ interpreter: Interpreter) throws -> (Value) throws -> Value {
        var arguments = arguments
        if arguments.positional.isEmpty, let attribute = arguments.keywords.first(where: { $0.name == "attribute" }) {
            let fallback = arguments.keywords.first { $0.name == "default" }?.value
            if let other = arguments.keywords.first(where: { $0.name != "attribute" && $0.name != "default" }) {
                throw Fault.failed("FilterArgumentError: Unexpected keyword argument '\(other.name)'")
            }
            let path = Path(attribute.value)
            return { try path.value(in: $0, fallback: fallback, interpreter) }
        }
        guard let name = arguments.positional.first else {
            throw Fault.failed("FilterArgumentError: map requires a filter argument")
        }
        arguments.positional.removeFirst()
        return { [arguments] in try apply(name.text?.string ?? name.type, $0, arguments, interpreter) }
    }

    private static func selected(
        _ value: Value, _ arguments: Arguments, _ interpreter: Interpreter, keep: Bool, byAttribute: Bool
    ) throws -> Value {
        try generator(value, interpreter) {
            var rest = arguments
            var path = Path(nil)
            if byAttribute {
                guard let attribute = rest.positional.first else {
                    throw Fault.failed("FilterArgumentError: Missing parameter for attribute name")
                }
                path = Path(attribute)
                rest.positional.removeFirst()
            }
            let name = rest.positional.first
            if name != nil { rest.positional.removeFirst() }
            return { [path, rest] item in
                let found = try path.value(in: item, interpreter)
                let passes =
                    try name.map { try Tests.apply($0.text?.string ?? $0.type, found, rest, interpreter) }
                    ?? found.truth(interpreter)
                return passes == keep ? item : nil
            }
        }
    }
}
