/// jinja's tests.
enum Tests {
    static let names: Set<String> = [
        "odd", "even", "divisibleby", "defined", "undefined", "filter", "test", "none", "boolean", "false", "true",
        "integer", "float", "lower",
        "upper", "string", "mapping", "number", "sequence", "iterable", "callable", "sameas", "escaped", "in", "==",
        "eq", "equalto", "!=", "ne",
        ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan", "<=", "le",
    ]

    static func apply(_ name: String, _ value: Value, _ arguments: Arguments, _ interpreter: Interpreter) throws -> Bool
    {
        func none() throws { _ = try arguments.bind(name, []) }
        func other(_ parameter: String = "") throws -> Value { try arguments.bind(name, [parameter], required: 1)[0]! }
        switch name {
        case "==", "eq", "equalto": return try equal(value, try other())
        case "!=", "ne": return try !equal(value, try other())
        case ">", "gt", "greaterthan": return try less(try other(), value)
        case ">=", "ge": return try less(try other(), value, orEqual: true)
        case "<", "lt", "lessthan": return try less(value, try other())
        case "<=", "le": return try less(value, try other(), orEqual: true)
        case "in": return try interpreter.isIn(value, try other("seq"))
        case "sameas": return try isSame(value, try other("other"))
        case "divisibleby": return try equal(try interpreter.apply(.mod, value, try other("num")), .int(0))
        case _ where names.contains(name): try none()
        default: throw Fault.failed("TemplateRuntimeError: No test named '\(name)' found.")
        }
        switch name {
        case "odd": return try equal(try interpreter.apply(.mod, value, .int(2)), .int(1))
        case "even": return try equal(try interpreter.apply(.mod, value, .int(2)), .int(0))
        case "defined": return !value.isUndefined
        case "undefined": return value.isUndefined
        case "filter": return try isName(value, in: Filters.names)
        case "test": return try isName(value, in: names)
        case "none": return value.isNone
        case "boolean": if case .bool = value { return true } else { return false }
        case "true": if case .bool(true) = value { return true } else { return false }
        case "false": if case .bool(false) = value { return true } else { return false }
        case "integer":
            switch value {
            case .int, .big: return true
            default: return false
            }
        case "float": if case .float = value { return true } else { return false }
        case "number": return value.isNumber
        case "string": return value.text != nil
        case "lower": return try interpreter.str(value).isLower
        case "upper": return try interpreter.str(value).isUpper
        case "mapping": if case .dict = value { return true } else { return false }
        case "sequence":
            switch value {
            case .undefined, .string, .markup, .list, .tuple, .dict, .range: return true
            default: return false
            }
        case "iterable": return isIterable(value)
        case "callable":
            switch value {
            case .undefined: return true
            case .object(let object): return object.isCallable
            default: return false
            }
        default: return value.isMarkup  // escaped
        }
    }

    static func isIterable(_ value: Value) -> Bool {
        switch value {
        case .none, .bool, .int, .big, .float: false
        case .object(let object): object is LoopContext
        default: true
        }
    }

    private static func isName(_ value: Value, in names: Set<String>) throws -> Bool {
        _ = try Key(value)
        return value.text.map { names.contains($0.string) } ?? false
    }

    /// Python's `is`, where that does not depend on what it keeps one object of.
    private static func isSame(_ left: Value, _ right: Value) throws -> Bool {
        switch (left, right) {
        case (.none, .none): return true
        case (.undefined(let a), .undefined(let b)): return a === b
        case (.bool(let a), .bool(let b)): return a == b
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            if case .tuple = left, a.items.isEmpty, b.items.isEmpty { return true }
            return a === b
        case (.dict(let a), .dict(let b)): return a === b
        case (.object(let a as BoundMethod), .object(let b as BoundMethod)): return a === b
        case (.object(let a), .object(let b)): return a === b
        case (.iterator(let a), .iterator(let b)): return a === b
        case (.int(let a), .int(let b)) where a != b || (-5...256).contains(a): return a == b
        case (.string(let a), .string(let b)) where a != b || a.count <= 1 && a.allSatisfy({ $0.value < 256 }):
            return a == b
        case (.float(let a), .float(let b)) where a != b && !a.isNaN: return false
        default:
            guard left.type != right.type else { throw Fault.unsupported("whether two equal values are one object") }
            return false
        }
    }
}
