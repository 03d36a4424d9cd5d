/// A JSON value that keeps the order of keys, tells whole numbers from other numbers, and holds strings exactly.
public enum Json: Equatable, Sendable {
    case null
    case bool(Bool)
    case int(Int)
    /// The digits of a whole number beyond 64 bits.
    case bigInt(String)
    case float(Double)
    case string(String)
    case array([Json])
    case object(JsonObject)

    /// The member of an object; nil where this is no object or has no such key.
    public subscript(key: String) -> Json? {
        if case .object(let object) = self { object[key] } else { nil }
    }

    public var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var intValue: Int? { if case .int(let value) = self { value } else { nil } }
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    public var arrayValue: [Json]? { if case .array(let value) = self { value } else { nil } }
    public var objectValue: JsonObject? { if case .object(let value) = self { value } else { nil } }

    /// A whole number or any other one.
    public var numberValue: Double? {
        switch self {
        case .int(let value): Double(value)
        case .bigInt(let digits): Double(digits)
        case .float(let value): value
        default: nil
        }
    }

    public var isNull: Bool { if case .null = self { true } else { false } }

    /// Numbers of different kinds are different, and strings are equal when their code points are.
    public static func == (left: Json, right: Json) -> Bool {
        switch (left, right) {
        case (.null, .null): true
        case (.bool(let a), .bool(let b)): a == b
        case (.int(let a), .int(let b)): a == b
        case (.bigInt(let a), .bigInt(let b)): a == b
        case (.float(let a), .float(let b)): a == b
        case (.string(let a), .string(let b)): a.utf8.elementsEqual(b.utf8)
        case (.array(let a), .array(let b)): a == b
        case (.object(let a), .object(let b)): a == b
        default: false
        }
    }
}

/// The members of a JSON object in their order.
public struct JsonObject: Equatable, Sendable, Sequence, ExpressibleByDictionaryLiteral {
    public private(set) var keys: [String] = []
    public private(set) var values: [Json] = []
    private var places: [ExactString: Int] = [:]

    public init() {}

    /// Members in order; of equal keys the last value counts.
    public init(_ members: [(String, Json)]) {
        for (key, value) in members { self[key] = value }
    }

    public init(dictionaryLiteral members: (String, Json)...) {
        self.init(members)
    }

    public var count: Int { keys.count }

    /// The value of a key. A new key is set at the end; nil removes nothing and is ignored.
    public subscript(key: String) -> Json? {
        get { places[ExactString(key)].map { values[$0] } }
        set {
            guard let newValue else { return }
            if let place = places[ExactString(key)] {
                values[place] = newValue
            } else {
                places[ExactString(key)] = keys.count
                keys.append(key)
                values.append(newValue)
            }
        }
    }

    public func makeIterator() -> Zip2Sequence<[String], [Json]>.Iterator {
        zip(keys, values).makeIterator()
    }

    /// Equal keys with equal values, in whatever order.
    public static func == (left: JsonObject, right: JsonObject) -> Bool {
        left.count == right.count && left.allSatisfy { key, value in right[key] == value }
    }
}

/// A string that is equal to another only if both have the same code points: Swift's own comparison takes é written
/// as one code point and as two for the same.
public struct ExactString: Hashable, Sendable {
    public let text: String

    public init(_ text: String) {
        self.text = text
    }

    public static func == (left: ExactString, right: ExactString) -> Bool {
        left.text.utf8.elementsEqual(right.text.utf8)
    }

    public func hash(into hasher: inout Hasher) {
        var text = text
        text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }
}

/// Why a text is not accepted as JSON, or a value cannot be written.
public struct JsonError: Error, Equatable, CustomStringConvertible {
    public let what: String
    /// The byte of the text at which reading ended.
    public let offset: Int?

    init(_ what: String, at offset: Int? = nil) {
        self.what = what
        self.offset = offset
    }

    public var description: String {
        offset.map { "not JSON as expected at byte \($0): \(what)" } ?? "cannot be written as JSON: \(what)"
    }
}
