/// A macro, or the body of a call block.
final class Macro: Object {
    private let code: MacroCode
    private let outside: Activation

    init(_ code: MacroCode, _ outside: Activation, _ interpreter: Interpreter) {
        (self.code, self.outside) = (code, outside)
        interpreter.keep(outside)
    }

    override var type: String { "Macro" }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        switch name {
        case "name": code.name.map { .text($0) } ?? Value.none
        case "arguments": .list(try Items(code.parameters.map { .text($0.name) }))
        case "catch_kwargs": .bool(code.keywordsSlot != nil)
        case "catch_varargs": .bool(code.moreSlot != nil)
        case "caller": .bool(code.usesCaller)
        case "explicit_caller": .bool(code.parameters.contains { $0.name == "caller" })
        default: nil
        }
    }

    override func printed(_ printer: inout Printer) throws -> Bool {
        try printer.write("<Macro ")
        if let name = code.name { try printer.write(quoted(Text(of: name))) } else { try printer.write("anonymous") }
        try printer.write(">")
        return true
    }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        let inside = Activation(code.slots, in: outside)
        try bind(arguments, inside)
        interpreter.enter(code.frame, inside)
        for (name, slot, fallback) in code.parameters where inside.slots[slot] == nil {
            inside.slots[slot] =
                try fallback.map { try interpreter.evaluate($0, inside) }
                ?? .undefined(Undefined("parameter '\(name)' was not provided"))
        }
        return .string(try interpreter.capture { try interpreter.execute(code.body, inside) }.0)
    }

    private func bind(_ arguments: Arguments, _ inside: Activation) throws {
        var keywords = arguments.keywords
        func take(_ name: String) -> Value? {
            keywords.firstIndex { $0.name == name }.map { keywords.remove(at: $0).value }
        }
        let count = code.parameters.count
        var foundCaller = arguments.positional.count >= count && code.parameters.contains { $0.name == "caller" }
        for (place, parameter) in code.parameters.enumerated() {
            if place < arguments.positional.count {
                inside.slots[parameter.slot] = arguments.positional[place]
            } else {
                inside.slots[parameter.slot] = take(parameter.name)
                if parameter.name == "caller" { foundCaller = true }
            }
        }
        let name = code.name ?? "None"
        if code.usesCaller, !foundCaller {
            guard let slot = code.callerSlot else {
                throw Fault.failed("TypeError: macro '\(name)' got two values for caller")
            }
            let caller = take("caller") ?? .none
            inside.slots[slot] = caller.isNone ? .undefined(Undefined("No caller defined")) : caller
        }
        if let slot = code.keywordsSlot {
            let dict = Dict()
            for (name, value) in keywords { try dict.set(.text(name), value) }
            inside.slots[slot] = .dict(dict)
        } else if let first = keywords.first {
            throw Fault.failed("TypeError: macro '\(name)' takes no keyword argument '\(first.name)'")
        }
        if let slot = code.moreSlot {
            inside.slots[slot] = .tuple(try Items(Array(arguments.positional.dropFirst(count))))
        } else if arguments.positional.count > count {
            throw Fault.failed("TypeError: macro '\(name)' takes not more than \(count) argument(s)")
        }
    }
}

/// jinja's namespace, the one thing with attributes that a template can set.
final class Namespace: Object {
    var attributes = Dict()

    init(_ interpreter: Interpreter) {
        super.init()
        interpreter.keep(self)
    }

    override var type: String { "Namespace" }
    override var isCallable: Bool { false }

    func set(_ name: String, _ value: Value) throws {
        guard !name.hasPrefix("_") else { throw Fault.failed("SecurityError: a namespace cannot hold '\(name)'") }
        try attributes.set(.text(name), value)
    }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        try attributes.value(.text(name))
    }

    override func printed(_ printer: inout Printer) throws -> Bool {
        try printer.write("<Namespace ")
        try printer.dict(attributes)
        try printer.write(">")
        return true
    }
}

/// The special variable `loop`.
final class LoopContext: Object {
    struct Recursion { let loop: Loop, outside: Activation }

    private let iterable: Value
    private var source: Generator
    private let recursion: Recursion?
    private let depth0: Int
    private var index0 = -1
    private var knownLength: Int?
    private var before: Value?, current: Value?, after: Value?
    private var changed: Value?
    private unowned let interpreter: Interpreter

    init(_ iterable: Value, _ recursion: Recursion?, _ depth: Int, _ interpreter: Interpreter) throws {
        (self.iterable, self.recursion, depth0, self.interpreter) = (iterable, recursion, depth, interpreter)
        source = try interpreter.iterate(iterable)
    }

    override var type: String { "LoopContext" }
    override var depth: Int { iterable.depth + 1 }

    /// The values of the turns, one for each time that the loop's body runs.
    var turns: Generator {
        get throws {
            try Generator("loop", over: 0) { [unowned self] in
                guard let value = try after ?? source.next() else { return nil }
                (before, current, after) = (current, value, nil)
                index0 += 1
                return value
            }
        }
    }

    private func peek() throws -> Value? {
        if after == nil { after = try source.next() }
        return after
    }

    func length() throws -> Int {
        if let knownLength { return knownLength }
        var length = try interpreter.length(iterable)
        if length == nil {
            let rest = try interpreter.list(.iterator(source))
            source = try interpreter.iterate(.list(try Items(rest)))
            length = rest.count + index0 + 1 + (after == nil ? 0 : 1)
        }
        knownLength = length
        return length!
    }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        switch name {
        case "index0": return .int(index0)
        case "index": return .int(index0 + 1)
        case "depth0": return .int(depth0)
        case "depth": return .int(depth0 + 1)
        case "length": return .int(try length())
        case "revindex0": return .int(try length() - index0 - 1)
        case "revindex": return .int(try length() - index0)
        case "first": return .bool(index0 == 0)
        case "last": return .bool(try peek() == nil)
        case "previtem":
            guard index0 != 0, let before else { return .undefined(Undefined("there is no previous item")) }
            return before
        case "nextitem": return try peek() ?? .undefined(Undefined("there is no next item"))
        case "cycle", "changed": return .object(BoundMethod(.object(self), name))
        default: return nil
        }
    }

    func method(_ name: String, _ arguments: Arguments) throws -> Value {
        guard arguments.keywords.isEmpty else {
            throw Fault.failed("TypeError: loop.\(name) takes no keyword arguments")
        }
        if name == "cycle" {
            guard !arguments.positional.isEmpty else { throw Fault.failed("TypeError: no items for cycling given") }
            return arguments.positional[index0 % arguments.positional.count]
        }
        let value = Value.tuple(try Items(arguments.positional))
        if let changed, try equal(changed, value) { return .bool(false) }
        changed = value
        return .bool(true)
    }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        let iterable = try arguments.bind("loop", ["iterable"], required: 1)[0]!
        guard let recursion else {
            throw Fault.failed("TypeError: The loop must have the 'recursive' marker to be called recursively.")
        }
        return .string(try interpreter.recurse(recursion.loop, iterable, outside: recursion.outside, depth: depth0 + 1))
    }

    override func printed(_ printer: inout Printer) throws -> Bool {
        try printer.write("<LoopContext \(index0 + 1)/\(try length())>")
        return true
    }
}

/// cycler(…): its items in turn.
final class Cycler: Object {
    private let items: Items
    private var place = 0

    init(_ items: Items) { self.items = items }

    override var type: String { "Cycler" }
    override var depth: Int { items.depth + 1 }
    override var isCallable: Bool { false }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        switch name {
        case "current": items.items[place]
        case "items": .tuple(items)
        case "pos": .int(place)
        case "next", "reset": .object(BoundMethod(.object(self), name))
        default: nil
        }
    }

    func method(_ name: String, _ arguments: Arguments) throws -> Value {
        _ = try arguments.bind("cycler.\(name)", [])
        let current = items.items[place]
        place = name == "next" ? (place + 1) % items.items.count : 0
        return name == "next" ? current : .none
    }
}

/// joiner(…): nothing the first time, then its separator.
final class Joiner: Object {
    private let separator: Value
    private var used = false

    init(_ separator: Value) { self.separator = separator }

    override var type: String { "Joiner" }
    override var depth: Int { separator.depth + 1 }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        name == "sep" ? separator : name == "used" ? .bool(used) : nil
    }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        _ = try arguments.bind("joiner", [])
        defer { used = true }
        return used ? separator : .empty
    }
}

/// The special variable `self`; it has the template's blocks, and templates with blocks are not rendered here.
final class TemplateReference: Object {
    override var type: String { "TemplateReference" }
    override var isCallable: Bool { false }

    override func printed(_ printer: inout Printer) throws -> Bool {
        try printer.write("<TemplateReference None>")
        return true
    }
}

/// A method and the value that it is of.
final class BoundMethod: Object {
    private let value: Value
    private let name: String

    init(_ value: Value, _ name: String) { (self.value, self.name) = (value, name) }

    override var type: String { "builtin_function_or_method" }
    override var depth: Int { value.depth + 1 }

    override func isEqual(_ other: Object) throws -> Bool {
        guard other is BoundMethod else { return false }
        throw Fault.unsupported("== of methods")
    }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        switch value {
        case .string(let text), .markup(let text):
            return try interpreter.method(name, of: text, isMarkup: value.isMarkup, arguments)
        case .object(let object as LoopContext): return try object.method(name, arguments)
        case .object(let object as Cycler): return try object.method(name, arguments)
        case .object: return try Globals.fromkeys(arguments, interpreter)
        default: return try interpreter.method(name, of: value, arguments)
        }
    }
}
