extension Interpreter {
    func evaluate(_ expression: Expression, _ activation: Activation) throws -> Value {
        try step()
        switch expression {
        case .constant(let value): return value
        case .name(let variable, let name, let checked):
            if let value = activation[variable] { return value }
            guard checked else { throw Fault.unsupported("the variable '\(name)' of a loop that has ended") }
            return .undefined(Undefined("'\(name)' is undefined"))
        case .list(let items): return .list(try Items(try evaluate(items, activation)))
        case .tuple(let items): return .tuple(try Items(try evaluate(items, activation)))
        case .dict(let pairs):
            let dict = Dict()
            for (key, value) in pairs {
                let key = try evaluate(key, activation)
                try dict.set(key, try evaluate(value, activation))
            }
            return .dict(dict)
        case .condition(let test, let then, let other):
            if try evaluate(test, activation).truth(self) { return try evaluate(then, activation) }
            guard let other else {
                return .undefined(
                    Undefined("the inline if-expression evaluated to false and no else section was defined."))
            }
            return try evaluate(other, activation)
        case .filter(let name, let value, let list):
            let value = try evaluate(value, activation)
            return try Filters.apply(name, value, try evaluate(list, activation), self)
        case .test(let name, let value, let list):
            let value = try evaluate(value, activation)
            return .bool(try Tests.apply(name, value, try evaluate(list, activation), self))
        case .captured: return .string(try capturedText())
        case .call(let callee, let list):
            let function = try evaluate(callee, activation)
            return try call(function, try evaluate(list, activation))
        case .item(let value, let place):
            let value = try evaluate(value, activation)
            return try item(value, try evaluate(place, activation))
        case .slice(let value, let start, let stop, let step):
            let value = try evaluate(value, activation)
            func bound(_ expression: Expression?) throws -> Value {
                try expression.map { try evaluate($0, activation) } ?? .none
            }
            let (first, last) = (try bound(start), try bound(stop))
            return try slice(value, first, last, try bound(step))
        case .attribute(let value, let name): return try attribute(try evaluate(value, activation), name)
        case .concat(let parts):
            let values = try evaluate(parts, activation)
            var text: Text = []
            for value in values {
                let part = try str(value)
                try claim(text.count + part.count)
                text += part
            }
            return .string(text)
        case .compare(let first, let operands):
            var left = try evaluate(first, activation)
            for (comparison, operand) in operands {
                let right = try evaluate(operand, activation)
                guard try compare(comparison, left, right) else { return .bool(false) }
                left = right
            }
            return .bool(true)
        case .binary(let operation, let left, let right):
            let left = try evaluate(left, activation)
            return try apply(operation, left, try evaluate(right, activation))
        case .and(let left, let right):
            let left = try evaluate(left, activation)
            return try left.truth(self) ? try evaluate(right, activation) : left
        case .or(let left, let right):
            let left = try evaluate(left, activation)
            return try left.truth(self) ? left : try evaluate(right, activation)
        case .not(let value): return .bool(try !evaluate(value, activation).truth(self))
        case .negative(let value): return try negated(try evaluate(value, activation))
        case .positive(let value): return try plus(try evaluate(value, activation))
        }
    }

    private func evaluate(_ expressions: [Expression], _ activation: Activation) throws -> [Value] {
        try claim(items: expressions.count)
        return try expressions.map { try evaluate($0, activation) }
    }

    /// `caller` is a call block's, which comes before what ** gives.
    func evaluate(_ list: ArgumentList, _ activation: Activation, caller: Macro? = nil) throws -> Arguments {
        var arguments = Arguments()
        arguments.positional = try list.positional.map { try evaluate($0, activation) }
        arguments.keywords = try list.keywords.map { ($0.name, try evaluate($0.value, activation)) }
        if let caller { arguments.keywords.append(("caller", .object(caller))) }
        if let more = list.more { arguments.positional += try self.list(try evaluate(more, activation)) }
        if let more = list.moreKeywords {
            let value = try evaluate(more, activation)
            guard case .dict(let dict) = value else {
                throw Fault.failed("TypeError: argument after ** must be a mapping, not \(value.type)")
            }
            for (key, value) in zip(dict.keys, dict.values) {
                guard let name = key.text?.string else { throw Fault.failed("TypeError: keywords must be strings") }
                guard !arguments.keywords.contains(where: { $0.name == name }) else {
                    throw Fault.failed("TypeError: got multiple values for keyword argument '\(name)'")
                }
                arguments.keywords.append((name, value))
            }
        }
        return arguments
    }

    private func compare(_ comparison: Comparison, _ left: Value, _ right: Value) throws -> Bool {
        switch comparison {
        case .eq: return try equal(left, right)
        case .ne: return try !equal(left, right)
        case .lt: return try less(left, right)
        case .lteq: return try less(left, right, orEqual: true)
        case .gt: return try less(right, left)
        case .gteq: return try less(right, left, orEqual: true)
        case .in: return try isIn(left, right)
        case .notin: return try !isIn(left, right)
        }
    }

    /// Python's `in`.
    func isIn(_ value: Value, _ container: Value) throws -> Bool {
        switch container {
        case .string(let text), .markup(let text):
            guard let part = value.text else {
                throw Fault.failed("TypeError: 'in <string>' requires string as left operand, not \(value.type)")
            }
            try step(text.count / 64)
            return text.find(part, 0, text.count) != nil
        case .list(let items), .tuple(let items):
            try step(items.items.count / 8)
            return try contains(items.items, value)
        case .dict(let dict): return try dict.value(value) != nil
        case .view(let view) where view.part == .keys: return try view.dict.value(value) != nil
        case .range(let range):
            if let place = value.int { return range.contains(place) }
            return try contains(try list(container), value)
        case .iterator(let iterator):
            while let item = try iterator.next() { if try contains([item], value) { return true } }
            return false
        case .view, .undefined: return try contains(try list(container), value)
        default: throw Fault.failed("TypeError: argument of type '\(container.type)' is not iterable")
        }
    }

    func call(_ value: Value, _ arguments: Arguments) throws -> Value {
        switch value {
        case .object(let object): return try nested { try object.call(arguments, self) }
        case .undefined(let undefined): throw undefined.fault
        default: throw Fault.failed("TypeError: '\(value.type)' object is not callable")
        }
    }
}

extension Value {
    /// Python's bool(), which asks a loop for its length.
    func truth(_ interpreter: Interpreter) throws -> Bool {
        if case .object(let object) = self, let loop = object as? LoopContext { return try loop.length() > 0 }
        return isTrue
    }
}

/// What a function is called with.
struct Arguments {
    var positional: [Value] = []
    var keywords: [(name: String, value: Value)] = []

    init(_ positional: [Value] = []) { self.positional = positional }

    /// The values of a function's parameters, nil where they are not given; the first `required` must be.
    func bind(_ function: String, _ names: [String], required: Int = 0) throws -> [Value?] {
        guard positional.count <= names.count else {
            throw Fault.failed(
                "TypeError: \(function) takes at most \(names.count) arguments, \(positional.count) given")
        }
        var values: [Value?] = positional + Array(repeating: nil, count: names.count - positional.count)
        for (name, value) in keywords {
            guard let place = names.firstIndex(of: name), !name.isEmpty else {
                throw Fault.failed("TypeError: \(function) got an unexpected keyword argument '\(name)'")
            }
            guard values[place] == nil else {
                throw Fault.failed("TypeError: \(function) got multiple values for argument '\(name)'")
            }
            values[place] = value
        }
        for place in 0..<required where values[place] == nil {
            throw Fault.failed("TypeError: \(function) is missing a required argument")
        }
        return values
    }
}
