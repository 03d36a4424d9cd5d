import Foundation

/// The variables of one call of a function; nil is what is not set.
final class Activation {
    var slots: [Value?]
    let outer: Activation?

    init(_ slots: Int, in outer: Activation?) {
        self.slots = Array(repeating: nil, count: slots)
        self.outer = outer
    }

    subscript(variable: Variable) -> Value? {
        get { at(variable.hops).slots[variable.slot] }
        set { at(variable.hops).slots[variable.slot] = newValue }
    }

    private func at(_ hops: Int) -> Activation {
        var found = self
        for _ in 0..<hops { found = found.outer! }
        return found
    }
}

/// One rendering: its variables, its text so far, and what it has used of the limits.
final class Interpreter {
    let limits: TemplateLimits
    let clock: Clock
    var line = 0
    private var output: Text = []
    private var captured: [Text] = []
    private var steps = 0
    private var bytes = 0
    private(set) var calls = 0
    private var given: [ExactString: Value] = [:]
    private var kept: [AnyObject] = []  // what can refer to itself, taken apart in the end
    private let stack = Interpreter.stackPointer()
    private let deadline = SuspendingClock.now + .seconds(10)

    init(limits: TemplateLimits, clock: Clock) {
        self.limits = limits
        self.clock = clock
    }

    func run(_ template: CompiledTemplate, _ variables: JsonObject) throws -> String {
        for (name, value) in variables { given[ExactString(name)] = try Value(value) }
        let root = Activation(template.slots, in: nil)
        defer { release() }
        if let slot = template.selfSlot { root.slots[slot] = .object(TemplateReference()) }
        enter(template.frame, root)
        _ = try execute(template.body, root)
        return output.string
    }

    private func release() {
        for object in kept {
            (object as? Activation)?.slots = []
            (object as? Namespace)?.attributes.clear()
        }
    }

    func keep(_ object: AnyObject) { kept.append(object) }

    // MARK: Limits

    func step(_ count: Int = 1) throws {
        let before = steps
        steps += count
        guard steps <= limits.steps else { throw Fault.limit("more than \(limits.steps) steps") }
        if steps >> 8 != before >> 8, SuspendingClock.now > deadline { throw Fault.limit("more than ten seconds") }
        guard stack < Interpreter.stackPointer() + (20 << 20) else { throw Fault.limit("calls nested too deep") }
    }

    /// Room for a string of so many characters, before it is made.
    func claim(_ characters: Int) throws { try claim(characters, of: 4) }

    func claim(items: Int) throws {
        guard items <= limits.size / 4 else { throw Fault.limit("a list of more than \(limits.size / 4)") }
        try claim(items, of: 32)
    }

    private func claim(_ count: Int, of size: Int) throws {
        guard count <= limits.size else { throw Fault.limit("a string or list of more than \(limits.size)") }
        bytes += count * size
        guard bytes <= limits.bytes else { throw Fault.limit("more than \(limits.bytes) bytes") }
        try step(count / 64)
    }

    private static func stackPointer() -> UInt {
        var marker = 0
        return withUnsafePointer(to: &marker) { UInt(bitPattern: $0) }
    }

    /// Runs what Python would put on its stack, which is limited.
    func nested<Result>(_ body: () throws -> Result) throws -> Result {
        calls += 1
        defer { calls -= 1 }
        guard calls <= limits.calls else { throw Fault.limit("more than \(limits.calls) calls inside one another") }
        return try body()
    }

    // MARK: Text

    func write(_ text: Text) throws {
        guard output.count + text.count <= limits.size else {
            throw Fault.limit("it writes more than \(limits.size) characters")
        }
        output += text
    }

    /// The text that `body` writes; nil where it leaves a loop.
    func capture(_ body: () throws -> Flow) throws -> (Text, Flow) {
        let outside = output
        output = []
        let flow = try body()
        let inside = output
        output = outside
        try claim(inside.count)
        return (inside, flow)
    }

    func withCaptured<Result>(_ text: Text, _ body: () throws -> Result) rethrows -> Result {
        captured.append(text)
        defer { captured.removeLast() }
        return try body()
    }

    func capturedText() throws -> Text {
        guard let text = captured.last else { throw Fault.failed("a filter without a value") }
        return text
    }

    /// Python's str().
    func str(_ value: Value) throws -> Text {
        if let text = value.text { return text }
        var printer = Printer(limit: limits.size)
        try printer.str(value)
        try claim(printer.text.count)
        return printer.text
    }

    // MARK: Variables

    func enter(_ frame: Frame, _ activation: Activation) {
        for (slot, load) in frame.loads {
            switch load {
            case .parameter: break
            case .resolve(let name): activation.slots[slot] = resolve(name)
            case .alias(let variable): activation.slots[slot] = activation[variable]
            case .unset: activation.slots[slot] = nil
            }
        }
    }

    func leave(_ frame: Frame, _ activation: Activation) {
        for (slot, _) in frame.loads { activation.slots[slot] = nil }
    }

    private func resolve(_ name: String) -> Value? {
        given[ExactString(name)] ?? Globals.all[name]
    }

    func assign(_ target: Target, _ value: Value, _ activation: Activation) throws {
        switch target {
        case .variable(let variable): activation[variable] = value
        case .attribute(let variable, let name):
            guard case .object(let object) = activation[variable], let namespace = object as? Namespace else {
                throw Fault.unsupported("setting an attribute of what is no namespace")
            }
            try namespace.set(name, value)
        case .tuple(let targets):
            let values = try unpacked(value, count: targets.count)
            for (target, value) in zip(targets, values) { try assign(target, value, activation) }
        }
    }

    private func unpacked(_ value: Value, count: Int) throws -> [Value] {
        let iterator = try iterate(value)
        var values: [Value] = []
        while values.count <= count, let next = try iterator.next() { values.append(next) }
        guard values.count == count else {
            throw Fault.failed(
                "ValueError: \(values.count > count ? "too many" : "not enough") values to unpack (expected \(count))")
        }
        return values
    }
}
