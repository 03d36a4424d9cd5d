import Foundation

/// A chat template: the syntax tree that the export wrote into the bundle as template.json, evaluated with the semantics
/// of Python and jinja. What Python would raise, and what this does not know, is refused.
public final class Template: Sendable {
    public static let schema = 1
    private let compiled: CompiledTemplate
    private let limits: TemplateLimits

    /// Throws Refusal where the program is not one, or has what this evaluator does not know.
    public init(_ program: Json, limits: TemplateLimits = TemplateLimits()) throws {
        self.limits = limits
        compiled = try onDeepStack { try Compiler.compile(program) }
    }

    /// The text for `variables`. `date` (YYYY-MM-DD, or with a time) is what strftime_now says; nil is the device's clock.
    public func render(_ variables: JsonObject, date: String? = nil) throws -> String {
        try onDeepStack { [compiled, limits] in
            let interpreter = Interpreter(limits: limits, clock: try Clock(date))
            do {
                return try interpreter.run(compiled, variables)
            } catch let fault as Fault {
                throw fault.refusal(line: interpreter.line)
            }
        }
    }
}

/// What one rendering may use. A template is a program from an untrusted file.
public struct TemplateLimits: Sendable {
    /// Nodes evaluated, and pieces of work of about the same size.
    public var steps = 2_000_000
    /// Characters of the text, and of any one string; any one list may have a quarter as many items.
    public var size = 4 << 20
    /// Bytes of all strings and lists that are ever made.
    public var bytes = 256 << 20
    /// Calls of macros and recursive loops inside one another.
    public var calls = 190

    public init() {}
}

/// Why a template cannot be rendered.
struct Fault: Error {
    enum Kind { case raised, failed, unsupported, limit }
    let kind: Kind
    let message: String

    /// raise_exception's message.
    static func raised(_ message: String) -> Fault { Fault(kind: .raised, message: message) }
    /// What Python raises.
    static func failed(_ message: String) -> Fault { Fault(kind: .failed, message: message) }
    /// What Python can do and this cannot.
    static func unsupported(_ message: String) -> Fault { Fault(kind: .unsupported, message: message) }
    static func limit(_ message: String) -> Fault { Fault(kind: .limit, message: message) }

    func refusal(line: Int) -> Refusal {
        let place = "\(message) (line \(line) of the template)"
        return switch kind {
        case .raised: Refusal("the chat template refuses these messages", got: place)
        case .failed: Refusal("the chat template fails", got: place, todo: "report it to the model's makers")
        case .unsupported: Refusal("the chat template needs what this app does not have", got: place)
        case .limit: Refusal("the chat template takes too much time or memory", got: place)
        }
    }
}

/// Runs on a thread with room for deep recursion: a secondary thread of an app has half a megabyte.
private func onDeepStack<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) throws -> Result {
    let outcome = Outcome<Result>()
    let thread = Thread {
        outcome.value = Swift.Result(catching: body)
        outcome.done.signal()
    }
    thread.stackSize = 32 << 20
    thread.start()
    outcome.done.wait()
    return try outcome.value!.get()
}

private final class Outcome<Value: Sendable>: @unchecked Sendable {  // written before the signal, read after it
    var value: Swift.Result<Value, any Error>?
    let done = DispatchSemaphore(value: 0)
}
