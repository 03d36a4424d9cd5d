/// A dict's key: 1, 1.0 and True are one key.
struct Key: Hashable {
    let value: Value

    /// Throws for values that cannot be keys.
    init(_ value: Value) throws {
        self.value = value
        var budget = 1000
        try Key.check(value, &budget)
    }

    private static func check(_ value: Value, _ budget: inout Int) throws {
        switch value {
        case .list, .dict: throw Fault.failed("TypeError: unhashable type: '\(value.type)'")
        case .view(let view) where view.part != .values:
            throw Fault.failed("TypeError: unhashable type: '\(value.type)'")
        case .float(let number) where number.isNaN: throw Fault.unsupported("NaN as a key")
        case .tuple(let items):
            for item in items.items {
                budget -= 1
                guard budget > 0 else { throw Fault.limit("a large tuple as a key") }
                try check(item, &budget)
            }
        default: break
        }
    }

    static func == (left: Key, right: Key) -> Bool {
        (try? equal(left.value, right.value)) ?? false  // the key's types and depth were checked
    }

    func hash(into hasher: inout Hasher) { Key.hash(value, into: &hasher) }

    private static func hash(_ value: Value, into hasher: inout Hasher) {
        switch value {
        case .bool(let value): hasher.combine(value ? 1.0 : 0.0)
        case .int(let value): hasher.combine(Double(value))
        case .big(let value): hasher.combine(value.double)
        case .float(let value): hasher.combine(value)
        case .string(let text), .markup(let text): hasher.combine(text)
        case .tuple(let items): items.items.forEach { hash($0, into: &hasher) }
        case .object(let object): hasher.combine(ObjectIdentifier(object))
        case .range(let range): hasher.combine(range.count)
        case .view(let view): hasher.combine(ObjectIdentifier(view))
        case .iterator(let iterator): hasher.combine(ObjectIdentifier(iterator))
        case .undefined, .none, .list, .dict: break
        }
    }
}

/// Python's ==.
func equal(_ left: Value, _ right: Value) throws -> Bool {
    var budget = 1 << 20
    return try equal(left, right, &budget)
}

private func equal(_ left: Value, _ right: Value, _ budget: inout Int) throws -> Bool {
    budget -= 1
    guard budget > 0 else { throw Fault.limit("a comparison of large values") }
    switch (left, right) {
    case (.undefined, .undefined), (.none, .none): return true
    case (.string(let a), .string(let b)), (.string(let a), .markup(let b)), (.markup(let a), .string(let b)),
        (.markup(let a), .markup(let b)):
        return a == b
    case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
        if a === b { return true }
        guard a.items.count == b.items.count else { return false }
        for (x, y) in zip(a.items, b.items) where !(try same(x, y, &budget)) { return false }
        return true
    case (.dict(let a), .dict(let b)):
        if a === b { return true }
        guard a.count == b.count else { return false }
        for (key, value) in zip(a.keys, a.values) {
            guard let other = try b.value(key), try same(value, other, &budget) else { return false }
        }
        return true
    case (.range(let a), .range(let b)):
        return a.count == b.count && (a.count == 0 || a.start == b.start && (a.count == 1 || a.step == b.step))
    case (.view(let a), .view(let b)):
        if a === b { return true }
        if a.part == .values || b.part == .values { return false }
        throw Fault.unsupported("== of a dict's views")
    case (.iterator(let a), .iterator(let b)): return a === b
    case (.object(let a), .object(let b)): return try a === b || a.isEqual(b)
    default: return try order(left, right) == .some(.same)
    }
}

/// Equality as containers see it: one object is equal to itself.
private func same(_ left: Value, _ right: Value, _ budget: inout Int) throws -> Bool {
    if case .float(let a) = left, case .float(let b) = right, a.isNaN, b.isNaN {
        throw Fault.unsupported("NaN inside a container that is compared")
    }
    return try equal(left, right, &budget)
}

func contains(_ items: some Sequence<Value>, _ value: Value) throws -> Bool {
    var budget = 1 << 20
    for item in items where try same(item, value, &budget) { return true }
    return false
}

enum Order { case before, same, after, unordered }

extension Order {
    init<T: Comparable>(_ left: T, _ right: T) { self = left < right ? .before : left == right ? .same : .after }
}

/// The order of two numbers, exactly; nil where one of them is none.
func order(_ left: Value, _ right: Value) throws -> Order? {
    switch (left, right) {
    case (.float(let a), .float(let b)): return a.isNaN || b.isNaN ? .unordered : Order(a, b)
    case (.float(let a), _):
        guard let whole = BigInt(right) else { return nil }
        guard let flipped = orderOfWhole(whole, a) else { return .unordered }
        return flipped == .before ? .after : flipped == .after ? .before : .same
    case (_, .float(let b)):
        guard let whole = BigInt(left) else { return nil }
        return orderOfWhole(whole, b) ?? .unordered
    default:
        if let a = left.int, let b = right.int { return Order(a, b) }
        guard let a = BigInt(left), let b = BigInt(right) else { return nil }
        return Order(a, b)
    }
}

private func orderOfWhole(_ whole: BigInt, _ number: Double) -> Order? {
    if number.isNaN { return nil }
    if number.isInfinite { return number > 0 ? .before : .after }
    let floor = number.rounded(.down)
    let order = Order(whole, BigInt(floor))
    return order == .same && floor < number ? .before : order
}

/// Python's < of two values; throws where they have no order.
func less(_ left: Value, _ right: Value, orEqual: Bool = false) throws -> Bool {
    if case .undefined(let undefined) = left { throw undefined.fault }
    if case .undefined(let undefined) = right { throw undefined.fault }
    if let order = try order(left, right) { return order == .before || orEqual && order == .same }
    if let a = left.text, let b = right.text {
        return orEqual ? !b.lexicographicallyPrecedes(a) : a.lexicographicallyPrecedes(b)
    }
    switch (left, right) {
    case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
        var budget = 1 << 20
        for (x, y) in zip(a.items, b.items) where !(try same(x, y, &budget)) { return try less(x, y, orEqual: orEqual) }
        return orEqual ? a.items.count <= b.items.count : a.items.count < b.items.count
    case (.view, .view): throw Fault.unsupported("the order of a dict's views")
    default:
        throw Fault.failed("TypeError: '<' not supported between instances of '\(left.type)' and '\(right.type)'")
    }
}

/// A stable sort as Python's, by keys. NaN has no place in an order.
func inOrder(_ values: [Value], keys: [Value], reverse: Bool = false, _ interpreter: Interpreter) throws -> [Value] {
    for key in keys {
        var parts = [key]
        if case .list(let items) = key { parts = items.items }
        guard !parts.contains(where: \.isNaN) else { throw Fault.unsupported("NaN in what is sorted") }
    }
    let places = try values.indices.sorted { a, b in
        try interpreter.step()
        if try reverse ? less(keys[b], keys[a]) : less(keys[a], keys[b]) { return true }
        if try reverse ? less(keys[a], keys[b]) : less(keys[b], keys[a]) { return false }
        return a < b
    }
    return places.map { values[$0] }
}

extension Value {
    var isNaN: Bool { if case .float(let number) = self { number.isNaN } else { false } }

    /// Python's bool().
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .big, .iterator: true
        case .float(let value): value != 0
        case .string(let text), .markup(let text): !text.isEmpty
        case .list(let items), .tuple(let items): !items.items.isEmpty
        case .dict(let dict): dict.count > 0
        case .range(let range): range.count > 0
        case .view(let view): view.dict.count > 0
        case .object: true
        }
    }
}
