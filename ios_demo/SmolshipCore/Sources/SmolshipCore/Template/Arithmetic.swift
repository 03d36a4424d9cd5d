import Foundation

enum BinaryOperator: String {
    case add = "+", sub = "-", mul = "*", div = "/", floorDiv = "//", mod = "%", pow = "**"
}

extension Interpreter {
    /// Python's binary operators.
    func apply(_ operation: BinaryOperator, _ left: Value, _ right: Value) throws -> Value {
        if case .undefined(let undefined) = left { throw undefined.fault }
        if case .mod = operation, let text = left.text { return try percent(text, right, isMarkup: left.isMarkup) }
        if case .undefined(let undefined) = right { throw undefined.fault }
        if let found = try number(operation, left, right) { return found }
        switch operation {
        case .add: if let joined = try joined(left, right) { return joined }
        case .mul:
            if let count = right.int { if let repeated = try repeated(left, count) { return repeated } }
            if let count = left.int { if let repeated = try repeated(right, count) { return repeated } }
            if case .big = right { throw Fault.limit("a product with a huge number") }
        case .sub:
            if case .view = left { throw Fault.unsupported("sets") }
        default: break
        }
        throw Fault.failed(
            "TypeError: unsupported operand type(s) for \(operation.rawValue): '\(left.type)' and '\(right.type)'")
    }

    private func joined(_ left: Value, _ right: Value) throws -> Value? {
        switch (left, right) {
        case (.string(let a), .string(let b)):
            try claim(a.count + b.count)
            return .string(a + b)
        case (.markup, .string), (.string, .markup), (.markup, .markup):
            let (a, b) = (try escaped(left), try escaped(right))
            try claim(a.count + b.count)
            return .markup(a + b)
        case (.list(let a), .list(let b)):
            try claim(items: a.items.count + b.items.count)
            return .list(try Items(a.items + b.items))
        case (.tuple(let a), .tuple(let b)):
            try claim(items: a.items.count + b.items.count)
            return .tuple(try Items(a.items + b.items))
        default: return nil
        }
    }

    private func repeated(_ value: Value, _ count: Int) throws -> Value? {
        func many<Item>(_ items: [Item], _ claim: (Int) throws -> Void) throws -> [Item] {
            let (size, overflow) = items.count.multipliedReportingOverflow(by: max(count, 0))
            guard !overflow else { throw Fault.limit("a string or list of a huge size") }
            try claim(size)
            var result: [Item] = []
            result.reserveCapacity(size)
            if size > 0 { for _ in 0..<count { result += items } }
            return result
        }
        switch value {
        case .string(let text): return .string(try many(text) { try claim($0) })
        case .markup(let text): return .markup(try many(text) { try claim($0) })
        case .list(let items): return .list(try Items(try many(items.items) { try claim(items: $0) }))
        case .tuple(let items): return .tuple(try Items(try many(items.items) { try claim(items: $0) }))
        default: return nil
        }
    }

    private func number(_ operation: BinaryOperator, _ left: Value, _ right: Value) throws -> Value? {
        if let a = left.int, let b = right.int, let small = try small(operation, a, b) { return small }
        if let a = BigInt(left), let b = BigInt(right) { return try whole(operation, a, b) }
        guard left.isNumber, right.isNumber else { return nil }
        let (a, b) = (try left.double(), try right.double())
        switch operation {
        case .add: return .float(a + b)
        case .sub: return .float(a - b)
        case .mul: return .float(a * b)
        case .div:
            guard b != 0 else { throw Fault.failed("ZeroDivisionError: float division by zero") }
            return .float(a / b)
        case .floorDiv: return .float(try floorDivided(a, b).quotient)
        case .mod: return .float(try floorDivided(a, b).remainder)
        case .pow: return .float(try power(a, b))
        }
    }

    /// Whole numbers of 64 bits; nil where the result is none or needs more thought.
    private func small(_ operation: BinaryOperator, _ a: Int, _ b: Int) throws -> Value? {
        let result: (partialValue: Int, overflow: Bool)
        switch operation {
        case .add: result = a.addingReportingOverflow(b)
        case .sub: result = a.subtractingReportingOverflow(b)
        case .mul: result = a.multipliedReportingOverflow(by: b)
        case .floorDiv, .mod:
            guard b != 0, a != Int.min else { return nil }
            let (quotient, rest) = a.quotientAndRemainder(dividingBy: b)
            let down = rest != 0 && (rest < 0) != (b < 0)
            return .int(operation == .mod ? (down ? rest + b : rest) : (down ? quotient - 1 : quotient))
        case .div, .pow: return nil
        }
        return result.overflow ? nil : .int(result.partialValue)
    }

    private func whole(_ operation: BinaryOperator, _ a: BigInt, _ b: BigInt) throws -> Value {
        switch operation {
        case .add: return (a + b).value
        case .sub: return (a - b).value
        case .mul: return try (a * b).value
        case .floorDiv: return try a.dividedDown(by: b).quotient.value
        case .mod: return try a.dividedDown(by: b).remainder.value
        case .div:
            guard !b.isZero else { throw Fault.failed("ZeroDivisionError: division by zero") }
            return .float(try a.divided(by: b))
        case .pow:
            guard !b.negative else { return .float(try power(try a.value.double(), try b.value.double())) }
            if a.isZero || a.words == [1] {
                return (b.isZero || !a.negative ? (b.isZero ? BigInt(1) : a) : b.isOdd ? a : BigInt(1)).value
            }
            guard case .int(let exponent) = b.value else { throw Fault.limit("a number of thousands of digits") }
            return try a.power(exponent).value
        }
    }

    private func power(_ a: Double, _ b: Double) throws -> Double {
        if a == 0, b < 0 { throw Fault.failed("ZeroDivisionError: 0.0 cannot be raised to a negative power") }
        if a < 0, a.isFinite, b.isFinite, b.rounded() != b { throw Fault.unsupported("complex numbers") }
        let result = Foundation.pow(a, b)
        guard result.isFinite || !a.isFinite || !b.isFinite else {
            throw Fault.failed("OverflowError: the result of ** is too large")
        }
        return result
    }

    private func floorDivided(_ a: Double, _ b: Double) throws -> (quotient: Double, remainder: Double) {
        guard b != 0 else { throw Fault.failed("ZeroDivisionError: float floor division by zero") }
        var rest = fmod(a, b)
        var quotient = (a - rest) / b
        if rest != 0 {
            if (b < 0) != (rest < 0) {
                rest += b
                quotient -= 1
            }
        } else {
            rest = copysign(0, b)
        }
        guard quotient != 0 else { return (copysign(0, a / b), rest) }
        let down = quotient.rounded(.down)
        return (quotient - down > 0.5 ? down + 1 : down, rest)
    }

    func negated(_ value: Value) throws -> Value {
        switch value {
        case .float(let number): return .float(-number)
        case .undefined(let undefined): throw undefined.fault
        default:
            guard let whole = BigInt(value) else {
                throw Fault.failed("TypeError: bad operand type for unary -: '\(value.type)'")
            }
            return (-whole).value
        }
    }

    func plus(_ value: Value) throws -> Value {
        switch value {
        case .float, .int, .big: return value
        case .bool(let truth): return .int(truth ? 1 : 0)
        case .undefined(let undefined): throw undefined.fault
        default: throw Fault.failed("TypeError: bad operand type for unary +: '\(value.type)'")
        }
    }
}

extension Value {
    var isMarkup: Bool { if case .markup = self { true } else { false } }

    var isNumber: Bool {
        switch self {
        case .bool, .int, .big, .float: true
        default: false
        }
    }

    /// A number as a double; throws where it is beyond the range.
    func double() throws -> Double {
        switch self {
        case .float(let value): return value
        case .bool, .int: return Double(int!)
        case .big(let value):
            guard value.double.isFinite else { throw Fault.failed("OverflowError: int too large to convert to float") }
            return value.double
        default: throw Fault.failed("TypeError: must be real number, not \(type)")
        }
    }
}
