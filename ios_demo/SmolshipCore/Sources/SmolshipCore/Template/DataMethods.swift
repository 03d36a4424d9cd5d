extension Interpreter {
    /// A method of a list, tuple, dict, range or number.
    func method(_ name: String, of value: Value, _ arguments: Arguments) throws -> Value {
        let call = TextCall(name, arguments)
        switch (value, name) {
        case (.list(let items), "copy"):
            _ = try call.values(0...0)
            try claim(items: items.items.count)
            return .list(try Items(items.items))
        case (.list(let items), "count"), (.tuple(let items), "count"):
            let wanted = try call.values(1...1)[0]
            return .int(try items.items.filter { try contains([$0], wanted) }.count)
        case (.range(let range), "count"):
            let wanted = try call.values(1...1)[0]
            if let place = wanted.int { return .int(range.contains(place) ? 1 : 0) }
            return .int(try list(value).filter { try equal($0, wanted) }.count)
        case (.list(let items), "index"), (.tuple(let items), "index"):
            let values = try call.values(1...3)
            let (start, end) = try call.bounds(Array(values.dropFirst()), items.items.count)
            if start < end {
                for place in start..<end where try contains([items.items[place]], values[0]) { return .int(place) }
            }
            throw Fault.failed("ValueError: the value is not in the \(value.type)")
        case (.range(let range), "index"):
            guard let place = try call.values(1...1)[0].int, range.contains(place) else {
                throw Fault.failed("ValueError: the value is not in range")
            }
            return .int((place - range.start) / range.step)
        case (.dict(let dict), "get"):
            let values = try call.values(1...2)
            return try dict.value(values[0]) ?? (values.count == 2 ? values[1] : .none)
        case (.dict(let dict), "items"): return try call.none { .view(DictView(dict, .items)) }
        case (.dict(let dict), "keys"): return try call.none { .view(DictView(dict, .keys)) }
        case (.dict(let dict), "values"): return try call.none { .view(DictView(dict, .values)) }
        case (.dict(let dict), "copy"):
            _ = try call.values(0...0)
            try claim(items: dict.count)
            return .dict(dict.copy())
        case (.dict, "fromkeys"): return try Globals.fromkeys(arguments, self)
        case (.float(let number), "is_integer"):
            return try call.none { .bool(number.isFinite && number.rounded() == number) }
        case (.float, "conjugate"): return try call.none { value }
        case (.int, "conjugate"), (.bool, "conjugate"), (.big, "conjugate"): return try call.none { try plus(value) }
        case (.int, "bit_length"), (.bool, "bit_length"):
            return try call.none { .int(Int.bitWidth - value.int!.magnitude.leadingZeroBitCount) }
        case (.int, "bit_count"), (.bool, "bit_count"):
            return try call.none { .int(value.int!.magnitude.nonzeroBitCount) }
        default: throw Fault.unsupported("the method \(value.type).\(name)")
        }
    }
}
