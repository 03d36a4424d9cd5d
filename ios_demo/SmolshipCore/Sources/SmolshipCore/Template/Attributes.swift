/// An attribute as jinja's sandbox sees it.
private enum Found {
    case value(Value)
    case unsafe  // exists, and is not for templates
    case absent
}

extension Interpreter {
    /// `value.name`: an attribute, else an item.
    func attribute(_ value: Value, _ name: String) throws -> Value {
        switch try find(value, name) {
        case .value(let found): return found
        case .unsafe: return unsafe(value, name)
        case .absent:
            if case .undefined(let undefined) = value { throw undefined.fault }
            if case .dict(let dict) = value, let found = try dict.value(.text(name)) { return found }
            return missing(value, name)
        }
    }

    /// `value[key]`: an item, else an attribute.
    func item(_ value: Value, _ key: Value) throws -> Value {
        if case .undefined(let undefined) = value { throw undefined.fault }
        if let found = try subscript_(value, key) { return found }
        guard let name = key.text?.string else { return missing(value, try printed(key)) }
        switch try find(value, name) {
        case .value(let found): return found
        case .unsafe: return unsafe(value, name)
        case .absent: return missing(value, name)
        }
    }

    /// The attribute filter: an attribute alone.
    func attributeAlone(_ value: Value, _ name: String) throws -> Value {
        if case .undefined(let undefined) = value, !name.hasPrefix("__") { throw undefined.fault }
        switch try find(value, name) {
        case .value(let found): return found
        case .unsafe: return unsafe(value, name)
        case .absent: return missing(value, name)
        }
    }

    private func printed(_ key: Value) throws -> String {
        var printer = Printer(limit: 1000)
        do { try printer.repr(key) } catch is Fault { return "an item" }
        return printer.text.string
    }

    private func unsafe(_ value: Value, _ name: String) -> Value {
        .undefined(Undefined("access to attribute '\(name)' of '\(value.type)' object is unsafe."))
    }

    private func missing(_ value: Value, _ name: String) -> Value {
        .undefined(Undefined("'\(value.isNone ? "None" : value.type + " object")' has no attribute '\(name)'"))
    }

    /// Python's value[key]; nil where it raises a TypeError or LookupError.
    private func subscript_(_ value: Value, _ key: Value) throws -> Value? {
        switch value {
        case .dict(let dict):
            do { return try dict.value(key) } catch let fault as Fault where fault.kind == .failed { return nil }
        case .list(let items), .tuple(let items): return place(key, items.items.count).map { items.items[$0] }
        case .string(let text): return place(key, text.count).map { .string([text[$0]]) }
        case .markup(let text): return place(key, text.count).map { .markup([text[$0]]) }
        case .range(let range): return place(key, range.count).map { .int(range.item($0)) }
        default: return nil
        }
    }

    private func place(_ key: Value, _ count: Int) -> Int? {
        guard let place = key.int else { return nil }
        let found = place < 0 ? place + count : place
        return (0..<count).contains(found) ? found : nil
    }

    private func find(_ value: Value, _ name: String) throws -> Found {
        if name.hasPrefix("__"), name.hasSuffix("__") {
            return Found.everywhere.contains(name) || Found.special[value.type]?.contains(name) == true
                ? .unsafe : .absent
        }
        func method(_ names: Set<String>) -> Found {
            names.contains(name) ? .value(.object(BoundMethod(value, name))) : .absent
        }
        switch value {
        case .undefined(let undefined):
            if name.hasPrefix("_undefined") || name == "_fail_with_undefined_error" { return .unsafe }
            throw undefined.fault
        case .none: return .absent
        case .bool, .int, .big:
            switch name {
            case "real", "numerator": return .value(try plus(value))
            case "imag": return .value(.int(0))
            case "denominator": return .value(.int(1))
            default:
                return method(["bit_length", "bit_count", "conjugate", "as_integer_ratio", "to_bytes", "from_bytes"])
            }
        case .float:
            if name == "real" { return .value(value) }
            if name == "imag" { return .value(.float(0)) }
            return method(["is_integer", "conjugate", "as_integer_ratio", "hex", "fromhex"])
        case .string: return method(Interpreter.textMethods)
        case .markup: return method(Interpreter.textMethods.union(["unescape", "striptags", "escape"]))
        case .list:
            if ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"].contains(name) {
                return .unsafe
            }
            return method(["copy", "count", "index"])
        case .tuple(let items):
            if let place = items.fields.firstIndex(of: name) { return .value(items.items[place]) }
            return method(["count", "index"])
        case .dict:
            if ["clear", "pop", "popitem", "setdefault", "update"].contains(name) { return .unsafe }
            return method(["get", "items", "keys", "values", "copy", "fromkeys"])
        case .range(let range):
            switch name {
            case "start": return .value(.int(range.start))
            case "stop": return .value(.int(range.stop))
            case "step": return .value(.int(range.step))
            default: return method(["count", "index"])
            }
        case .view:
            guard name != "mapping", name != "isdisjoint" else { throw Fault.unsupported("\(value.type).\(name)") }
            return .absent
        case .iterator(let iterator):
            if iterator.type == "generator", ["close", "send", "throw"].contains(name) || name.hasPrefix("gi_") {
                throw Fault.unsupported("a generator's \(name)")
            }
            return .absent
        case .object(let object): return try object.attribute(name, self).map { .value($0) } ?? .absent
        }
    }

    /// value[start:stop:step]
    func slice(_ value: Value, _ start: Value, _ stop: Value, _ step: Value) throws -> Value {
        if case .undefined(let undefined) = value { throw undefined.fault }
        func bounds(_ count: Int) throws -> (start: Int, stop: Int, step: Int, places: [Int]) {
            let step = try bound(step) ?? 1
            guard step != 0 else { throw Fault.failed("ValueError: slice step cannot be zero") }
            let (lowest, highest) = step < 0 ? (-1, count - 1) : (0, count)
            func clamp(_ value: Int?, _ missing: Int) -> Int {
                guard let value else { return missing }
                return min(max(value < 0 ? value + count : value, lowest), highest)
            }
            let first = clamp(try bound(start), step < 0 ? highest : lowest)
            let last = clamp(try bound(stop), step < 0 ? lowest : highest)
            return (first, last, step, Array(stride(from: first, to: last, by: step)))
        }
        switch value {
        case .string(let text), .markup(let text):
            let places = try bounds(text.count).places
            try claim(places.count)
            let part = places.map { text[$0] }
            return value.isMarkup ? .markup(part) : .string(part)
        case .list(let items), .tuple(let items):
            let places = try bounds(items.items.count).places
            try claim(items: places.count)
            let part = try Items(places.map { items.items[$0] })
            if case .list = value { return .list(part) }
            return .tuple(part)
        case .range(let range):
            let (start, stop, step, _) = try bounds(range.count)
            guard abs(step) <= 1 << 40, let part = RangeValue(range.item(start), range.item(stop), range.step * step)
            else {
                throw Fault.limit("a slice with a huge step")
            }
            return .range(part)
        case .dict: throw Fault.failed("TypeError: unhashable type: 'slice'")
        default: throw Fault.failed("TypeError: '\(value.type)' object is not subscriptable")
        }
    }

    private func bound(_ value: Value) throws -> Int? {
        if value.isNone { return nil }
        if case .big(let big) = value { return big.negative ? -(1 << 60) : 1 << 60 }
        guard let number = value.int else {
            throw Fault.failed("TypeError: slice indices must be integers or None or have an __index__ method")
        }
        return min(max(number, -(1 << 60)), 1 << 60)
    }

    // MARK: Iteration

    func iterate(_ value: Value) throws -> Generator {
        func count(to count: Int, _ type: String, _ item: @escaping (Int) throws -> Value) throws -> Generator {
            var place = 0
            return try Generator(type, over: value.depth) {
                guard place < count else { return nil }
                defer { place += 1 }
                return try item(place)
            }
        }
        switch value {
        case .undefined: return try count(to: 0, "generator") { _ in .none }
        case .string(let text), .markup(let text):
            return try count(to: text.count, "str_iterator") { .string([text[$0]]) }
        case .list(let items): return try count(to: items.items.count, "list_iterator") { items.items[$0] }
        case .tuple(let items): return try count(to: items.items.count, "tuple_iterator") { items.items[$0] }
        case .dict(let dict): return try count(to: dict.count, "dict_keyiterator") { dict.keys[$0] }
        case .view(let view): return try count(to: view.dict.count, "dict_iterator") { try view.item($0) }
        case .range(let range): return try count(to: range.count, "range_iterator") { .int(range.item($0)) }
        case .iterator(let iterator): return iterator
        case .object(let object) where object is LoopContext: throw Fault.unsupported("a loop over `loop` itself")
        default: throw Fault.failed("TypeError: '\(value.type)' object is not iterable")
        }
    }

    /// Python's list().
    func list(_ value: Value) throws -> [Value] {
        switch value {
        case .list(let items), .tuple(let items):
            try claim(items: items.items.count)
            return items.items
        default:
            if let count = try length(value) { try claim(items: count) }
            let iterator = try iterate(value)
            var items: [Value] = []
            while let item = try iterator.next() {
                items.append(item)
                if items.count % 1024 == 0 { try claim(items: 1024) }
                guard items.count <= limits.size else { throw Fault.limit("a list of more than \(limits.size)") }
            }
            return items
        }
    }

    /// Python's len(); nil for what has none.
    func length(_ value: Value) throws -> Int? {
        switch value {
        case .undefined: 0
        case .string(let text), .markup(let text): text.count
        case .list(let items), .tuple(let items): items.items.count
        case .dict(let dict): dict.count
        case .view(let view): view.dict.count
        case .range(let range): range.count
        case .object(let object as LoopContext): try object.length()
        default: nil
        }
    }
}

extension Found {
    /// Attributes of all objects of Python, which the sandbox hides.
    static let everywhere: Set<String> = [
        "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattribute__",
        "__getstate__", "__gt__",
        "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__", "__ne__", "__new__", "__reduce__",
        "__reduce_ex__", "__repr__",
        "__setattr__", "__sizeof__", "__str__", "__subclasshook__",
    ]

    /// Those of single types that a dict's key may share a name with.
    static let special: [String: Set<String>] = [
        "dict": [
            "__contains__", "__delitem__", "__getitem__", "__iter__", "__len__", "__or__", "__reversed__", "__ror__",
            "__ior__",
            "__setitem__", "__class_getitem__",
        ]
    ]
}
