/// A function that every template can call.
final class GlobalFunction: Object {
    let name: String
    private let body: (Arguments, Interpreter) throws -> Value

    init(_ name: String, _ body: @escaping (Arguments, Interpreter) throws -> Value) {
        (self.name, self.body) = (name, body)
    }

    override var type: String { "function" }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        self.name == "dict" && name == "fromkeys" ? .object(BoundMethod(.object(self), name)) : nil
    }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        try body(arguments, interpreter)
    }
}

/// What templates find beside their variables: jinja's functions and those of transformers.
enum Globals {
    static var all: [String: Value] { functions.all }

    private struct Functions: @unchecked Sendable {  // nothing of them changes
        let all: [String: Value]
    }

    private static let functions = Functions(all: [
        "range": function("range", range), "dict": function("dict", dict),
        "namespace": function("namespace", namespace),
        "cycler": function("cycler") { arguments, _ in
            guard arguments.keywords.isEmpty, !arguments.positional.isEmpty else {
                throw Fault.failed("RuntimeError: at least one item has to be provided")
            }
            return .object(Cycler(try Items(arguments.positional)))
        },
        "joiner": function("joiner") { arguments, _ in
            .object(Joiner(try arguments.bind("joiner", ["sep"])[0] ?? .text(", ")))
        },
        "lipsum": function("lipsum") { _, _ in throw Fault.unsupported("lipsum, which is random") },
        "raise_exception": function("raise_exception") { arguments, interpreter in
            let message = try arguments.bind("raise_exception", ["message"], required: 1)[0]!
            throw Fault.raised(clip(try interpreter.str(message).string))
        },
        "strftime_now": function("strftime_now") { arguments, interpreter in
            let format = try arguments.bind("strftime_now", ["format"], required: 1)[0]!
            guard let text = format.text else {
                throw Fault.failed("TypeError: strftime() argument 1 must be str, not \(format.type)")
            }
            return .text(try interpreter.clock.format(text.string))
        },
    ])

    private static func function(_ name: String, _ body: @escaping (Arguments, Interpreter) throws -> Value) -> Value {
        .object(GlobalFunction(name, body))
    }

    private static func range(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        guard arguments.keywords.isEmpty, (1...3).contains(arguments.positional.count) else {
            throw Fault.failed("TypeError: range expected 1 to 3 arguments, got \(arguments.positional.count)")
        }
        let numbers = try arguments.positional.map { value -> Int in
            if case .big = value { throw Fault.failed("OverflowError: Range too big.") }
            guard let number = value.int else {
                throw Fault.failed("TypeError: '\(value.type)' object cannot be interpreted as an integer")
            }
            return number
        }
        let step = numbers.count == 3 ? numbers[2] : 1
        guard step != 0 else { throw Fault.failed("ValueError: range() arg 3 must not be zero") }
        let (start, stop) = numbers.count == 1 ? (0, numbers[0]) : (numbers[0], numbers[1])
        guard let range = RangeValue(start, stop, step), range.count <= 100_000 else {
            throw Fault.failed("OverflowError: Range too big. The sandbox blocks ranges larger than 100000.")
        }
        return .range(range)
    }

    /// dict(…): of a dict or of pairs, and of keywords.
    private static func dict(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        .dict(try members(arguments, "dict", interpreter))
    }

    private static func members(_ arguments: Arguments, _ name: String, _ interpreter: Interpreter) throws -> Dict {
        guard arguments.positional.count <= 1 else {
            throw Fault.failed("TypeError: \(name) expected at most 1 argument, got \(arguments.positional.count)")
        }
        let dict: Dict
        switch arguments.positional.first {
        case nil: dict = Dict()
        case .dict(let given): dict = given.copy()
        case .undefined(let undefined): throw undefined.fault  // Python asks it for its keys
        case .some(let value):
            dict = Dict()
            for item in try interpreter.list(value) {
                let pair = try interpreter.list(item)
                guard pair.count == 2 else {
                    throw Fault.failed(
                        "ValueError: dictionary update sequence element has length \(pair.count); 2 is required")
                }
                try dict.set(pair[0], pair[1])
            }
        }
        try interpreter.claim(items: dict.count + arguments.keywords.count)
        for (name, value) in arguments.keywords { try dict.set(.text(name), value) }
        return dict
    }

    private static func namespace(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        let namespace = Namespace(interpreter)
        let attributes = try members(arguments, "namespace", interpreter)
        for key in attributes.keys {
            if let name = key.text, name.first == "_" {
                throw Fault.failed("SecurityError: a namespace cannot hold '\(name.string)'")
            }
        }
        namespace.attributes = attributes
        return .object(namespace)
    }

    /// dict.fromkeys(keys, value).
    static func fromkeys(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        guard arguments.keywords.isEmpty, (1...2).contains(arguments.positional.count) else {
            throw Fault.failed("TypeError: fromkeys expected 1 or 2 arguments, got \(arguments.positional.count)")
        }
        let dict = Dict()
        for key in try interpreter.list(arguments.positional[0]) {
            try dict.set(key, arguments.positional.count == 2 ? arguments.positional[1] : .none)
        }
        return .dict(dict)
    }
}
