/// Text as code points: lengths, order and equality are Python's.
typealias Text = [Unicode.Scalar]

extension Text {
    init(of string: some StringProtocol) { self = Array(string.unicodeScalars) }

    var string: String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: self)
        return String(view)
    }
}

/// A value of a template, with Python's semantics. Nothing of it can be changed but the attributes of a namespace.
enum Value {
    case undefined(Undefined)
    case none
    case bool(Bool)
    case int(Int)
    case big(BigInt)  // whole numbers beyond 64 bits
    case float(Double)
    case string(Text)
    case markup(Text)  // a string that is marked as safe for HTML
    case list(Items)
    case tuple(Items)
    case dict(Dict)
    case range(RangeValue)
    case view(DictView)
    case iterator(Generator)
    case object(Object)

    static func text(_ string: String) -> Value { .string(Text(of: string)) }
    static var empty: Value { .string([]) }

    /// The code points of a string, safe for HTML or not.
    var text: Text? {
        switch self {
        case .string(let text), .markup(let text): text
        default: nil
        }
    }

    var isUndefined: Bool { if case .undefined = self { true } else { false } }
    var isNone: Bool { if case .none = self { true } else { false } }

    /// A whole number of 64 bits; booleans are such numbers.
    var int: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    /// The name of the type in Python.
    var type: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .int, .big: "int"
        case .float: "float"
        case .string: "str"
        case .markup: "Markup"
        case .list: "list"
        case .tuple: "tuple"
        case .dict: "dict"
        case .range: "range"
        case .view(let view): "dict_\(view.part)"
        case .iterator(let iterator): iterator.type
        case .object(let object): object.type
        }
    }

    /// How deep values are nested in one another.
    var depth: Int {
        switch self {
        case .list(let items), .tuple(let items): items.depth
        case .dict(let dict): dict.depth
        case .view(let view): view.dict.depth + 1
        case .iterator(let iterator): iterator.depth
        case .object(let object): object.depth
        default: 0
        }
    }

    static let maximalDepth = 500

    static func deeper(than depth: Int) throws -> Int {
        guard depth < maximalDepth else { throw Fault.limit("values nested more than \(maximalDepth) deep") }
        return depth + 1
    }
}

/// What a name or attribute is that does not exist: it prints as nothing and fails in most other uses.
final class Undefined {
    let message: String

    init(_ message: String) { self.message = message }

    var fault: Fault { .failed("UndefinedError: \(message)") }
}

/// The items of a list or tuple.
final class Items {
    let items: [Value]
    let depth: Int
    /// The names of a named tuple's items.
    let fields: [String]

    init(_ items: [Value], fields: [String] = []) throws {
        self.items = items
        self.fields = fields
        var depth = 0
        for item in items { depth = max(depth, item.depth) }
        self.depth = try Value.deeper(than: depth)
    }
}

/// A dict: keys in the order in which they were first set.
final class Dict {
    private(set) var keys: [Value] = []
    private(set) var values: [Value] = []
    private(set) var depth = 1
    private var places: [Key: Int] = [:]

    var count: Int { keys.count }

    func set(_ key: Value, _ value: Value) throws {
        depth = max(depth, try Value.deeper(than: max(key.depth, value.depth)))
        let hashed = try Key(key)
        if let place = places[hashed] {
            values[place] = value
        } else {
            places[hashed] = keys.count
            keys.append(key)
            values.append(value)
        }
    }

    /// Throws where the key is of a type that no dict has.
    func value(_ key: Value) throws -> Value? {
        places[try Key(key)].map { values[$0] }
    }

    func copy() -> Dict {
        let other = Dict()
        (other.keys, other.values, other.depth, other.places) = (keys, values, depth, places)
        return other
    }

    func clear() {
        (keys, values, places) = ([], [], [:])
    }
}

/// dict.keys(), dict.values() or dict.items().
final class DictView {
    enum Part { case keys, values, items }
    let dict: Dict
    let part: Part

    init(_ dict: Dict, _ part: Part) { (self.dict, self.part) = (dict, part) }

    func item(_ place: Int) throws -> Value {
        switch part {
        case .keys: dict.keys[place]
        case .values: dict.values[place]
        case .items: .tuple(try Items([dict.keys[place], dict.values[place]]))
        }
    }
}

/// Python's range.
struct RangeValue {
    let start: Int
    let stop: Int
    let step: Int
    let count: Int

    init?(_ start: Int, _ stop: Int, _ step: Int) {
        (self.start, self.stop, self.step) = (start, stop, step)
        let (gap, overflow) =
            step > 0 ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
        guard !overflow, step != Int.min else { return nil }
        count = gap <= 0 ? 0 : (gap - 1) / abs(step) + 1
    }

    func item(_ place: Int) -> Int { start + place * step }

    func contains(_ value: Int) -> Bool {
        let (gap, overflow) = value.subtractingReportingOverflow(start)
        guard !overflow, gap % step == 0 else { return false }
        return (0..<count).contains(gap / step)
    }
}

/// A generator or other iterator: lazy, true, and empty the second time.
final class Generator {
    let type: String
    let depth: Int
    private var step: (() throws -> Value?)?

    init(_ type: String, over depth: Int, _ step: @escaping () throws -> Value?) throws {
        self.type = type
        self.depth = try Value.deeper(than: depth)
        self.step = step
    }

    func next() throws -> Value? {
        guard let value = try step?() else {
            step = nil
            return nil
        }
        return value
    }
}

/// What is neither data nor an iterator: functions, methods, macros, namespaces, the loop.
class Object {
    var type: String { "object" }
    var depth: Int { 1 }
    var isCallable: Bool { true }

    /// An attribute that Python's object has; nil where it has none of this name.
    func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? { nil }

    func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        throw Fault.failed("TypeError: '\(type)' object is not callable")
    }

    /// Python's == of two objects that are not one.
    func isEqual(_ other: Object) throws -> Bool { false }

    /// Writes what Python prints; false where that holds an address in memory.
    func printed(_ printer: inout Printer) throws -> Bool { false }
}
