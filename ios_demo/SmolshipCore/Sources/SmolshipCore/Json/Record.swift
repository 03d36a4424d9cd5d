/// An object of an untrusted JSON file, read key by key; a refusal says where. A key that is not there counts as null.
struct Record {
    let file: String
    let at: String
    let object: JsonObject
    let todo: String

    /// `keys` are those that it may have; nil where others are left out.
    init(
        _ json: Json?, _ file: String, at: String = "", keys: [String]? = nil, todo: String = "export the bundle again"
    ) throws {
        (self.file, self.at, self.todo) = (file, at, todo)
        guard let object = json?.objectValue else {
            throw Record.wrong(at.isEmpty ? file : "\(file): \(at)", json, "an object", todo)
        }
        self.object = object
        if let keys {
            let unknown = object.keys.filter { key in !keys.contains { ExactString($0) == ExactString(key) } }
            guard unknown.isEmpty else {
                throw Refusal(
                    "\(at.isEmpty ? file : "\(file): \(at)") has unknown keys",
                    got: unknown.sorted().prefix(5).joined(separator: ", "),
                    expected: keys.joined(separator: ", "))
            }
        }
    }

    func path(_ key: String) -> String { at.isEmpty ? key : "\(at).\(key)" }

    /// The value of a key; nil where it is null or not there.
    subscript(key: String) -> Json? {
        let value = object[key]
        return value?.isNull == true ? nil : value
    }

    func wrong(_ key: String, _ expected: String) -> Refusal {
        Record.wrong("\(file): \(path(key))", self[key], expected, todo)
    }

    static func wrong(_ place: String, _ value: Json?, _ expected: String, _ todo: String) -> Refusal {
        Refusal("\(place) cannot be used", got: shown(value), expected: expected, todo: todo)
    }

    func string(_ key: String) throws -> String {
        guard let value = self[key]?.stringValue else { throw wrong(key, "a text") }
        return value
    }

    func int(_ key: String, in range: ClosedRange<Int> = Int.min...Int.max) throws -> Int {
        guard let value = self[key]?.intValue, range.contains(value) else {
            throw wrong(
                key,
                range == Int.min...Int.max ? "a whole number of 64 bits" : "\(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func bool(_ key: String) throws -> Bool {
        guard let value = self[key]?.boolValue else { throw wrong(key, "true or false") }
        return value
    }

    func number(_ key: String) throws -> Double {
        guard let value = Record.finite(self[key]) else { throw wrong(key, "a finite number") }
        return value
    }

    /// What `read` makes of a key; nil where it is null or not there.
    func optional<Value>(_ key: String, _ read: (String) throws -> Value) rethrows -> Value? {
        self[key] == nil ? nil : try read(key)
    }

    func array<Value>(_ key: String, _ read: (Json, String) throws -> Value) throws -> [Value] {
        guard let values = self[key]?.arrayValue else { throw wrong(key, "a list") }
        return try values.enumerated().map { try read($1, "\(path(key))[\($0)]") }
    }

    func strings(_ key: String) throws -> [String] {
        try array(key) { value, at in
            guard let text = value.stringValue else { throw Record.wrong("\(file): \(at)", value, "a text", todo) }
            return text
        }
    }

    func ints(_ key: String) throws -> [Int] {
        try array(key) { value, at in
            guard let number = value.intValue else {
                throw Record.wrong("\(file): \(at)", value, "a whole number", todo)
            }
            return number
        }
    }

    /// The members of an object, in order.
    func dictionary<Value>(_ key: String, _ read: (Json, String) throws -> Value) throws -> [(
        key: String, value: Value
    )] {
        guard let members = self[key]?.objectValue else { throw wrong(key, "an object") }
        return try members.map { ($0, try read($1, "\(path(key))[\($0)]")) }
    }

    /// A number that is a double: whole numbers up to 2^53 are.
    static func finite(_ value: Json?) -> Double? {
        switch value {
        case .int(let whole) where whole.magnitude <= 1 << 53: Double(whole)
        case .float(let double) where double.isFinite: double
        default: nil
        }
    }
}

/// A value from an untrusted file in a few characters.
func shown(_ value: Json?) -> String {
    switch value {
    case nil: "null"
    case .array(let values): "a list of \(values.count)"
    case .object(let object): "an object of \(object.count) keys"
    case .some(let value): clip((try? value.text()) ?? "a number that is not finite", limit: 120)
    }
}
