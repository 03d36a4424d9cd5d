extension Compiler {
    private static let operations: [String: BinaryOperator] = [
        "Add": .add, "Sub": .sub, "Mul": .mul, "Div": .div, "FloorDiv": .floorDiv, "Mod": .mod,
    ]

    static func expression(_ node: Node, _ scope: Scope) throws -> Expression {
        func inner(_ field: String) throws -> Expression { try expression(node.node(field), scope) }
        if node.kind == "Pow" { return try power(try inner("left"), try inner("right")) }
        if let operation = operations[node.kind] { return .binary(operation, try inner("left"), try inner("right")) }
        switch node.kind {
        case "TemplateData": return .constant(.text(node.text("data")))
        case "Const": return .constant(node.constant("value"))
        case "Name": return try name(node, scope)
        case "List": return .list(try node.nodes("items").map { try expression($0, scope) })
        case "Tuple": return .tuple(try node.nodes("items").map { try expression($0, scope) })
        case "Dict":
            return .dict(
                try node.nodes("items").map { pair in
                    guard pair.kind == "Pair" else { throw unknown(pair, "a pair of key and value") }
                    return (
                        key: try expression(pair.node("key"), scope), value: try expression(pair.node("value"), scope)
                    )
                })
        case "CondExpr":
            var soft = scope
            soft.soft = true
            return .condition(
                test: try expression(node.node("test"), soft), then: try expression(node.node("expr1"), soft),
                other: try node.maybe("expr2").map { try expression($0, soft) })
        case "Filter", "Test":
            let name = node.text("name")
            guard scope.soft || (node.kind == "Filter" ? Filters.names : Tests.names).contains(name) else {
                throw Fault.failed(
                    "TemplateAssertionError: No \(node.kind.lowercased()) named '\(name)', at line \(node.line)")
            }
            let value = try node.maybe("value").map { try expression($0, scope) } ?? .captured
            let list = try arguments(node, scope)
            return node.kind == "Filter" ? .filter(name, value, list) : .test(name, value, list)
        case "Call": return .call(try inner("value"), try arguments(node, scope))
        case "Getitem":
            let (value, place) = (try inner("value"), try node.node("arg"))
            guard place.kind == "Slice" else { return .item(value, try expression(place, scope)) }
            func bound(_ field: String) throws -> Expression? {
                try place.maybe(field).map { try expression($0, scope) }
            }
            return .slice(value, try bound("start"), try bound("stop"), try bound("step"))
        case "Getattr": return .attribute(try inner("value"), node.text("attr"))
        case "Concat": return .concat(try node.nodes("nodes").map { try expression($0, scope) })
        case "Compare":
            return .compare(
                try inner("expr"),
                try node.nodes("ops").map { operand in
                    guard operand.kind == "Operand", let comparison = Comparison(rawValue: operand.text("op")) else {
                        throw unknown(operand, "an operand of a comparison")
                    }
                    return (comparison, try expression(operand.node("expr"), scope))
                })
        case "And": return .and(try inner("left"), try inner("right"))
        case "Or": return .or(try inner("left"), try inner("right"))
        case "Not": return .not(try inner("value"))
        case "Neg": return .negative(try inner("value"))
        case "Pos": return .positive(try inner("value"))
        default: throw unknown(node, "an expression")
        }
    }

    /// jinja writes a constant that it has computed without parentheses, so that (-2) ** x is -(2 ** x) in Python.
    private static func power(_ left: Expression, _ right: Expression) throws -> Expression {
        guard left.isConstant, !right.isConstant else { return .binary(.pow, left, right) }
        let interpreter = Interpreter(limits: TemplateLimits(), clock: try Clock("2000-01-01"))
        guard let value = try? interpreter.evaluate(left, Activation(0, in: nil)), value.isNegative else {
            return .binary(.pow, left, right)
        }
        return .negative(.binary(.pow, .constant(try interpreter.negated(value)), right))
    }

    private static func name(_ node: Node, _ scope: Scope) throws -> Expression {
        let name = node.text("name")
        guard let reference = scope.symbols.reference(name) else {
            throw Fault.failed("AssertionError: '\(name)' is used where jinja does not look for names")
        }
        let checked =
            scope.inDefaults && reference.function === scope.symbols.function || !scope.symbols.isParameter(reference)
        return .name(scope.variable(reference), name, checked: checked)
    }

    static func arguments(_ node: Node, _ scope: Scope) throws -> ArgumentList {
        var list = ArgumentList()
        list.positional = try node.nodes("args").map { try expression($0, scope) }
        for keyword in node.nodes("kwargs") {
            guard keyword.kind == "Keyword" else { throw unknown(keyword, "a keyword argument") }
            let name = keyword.text("key")
            guard !list.keywords.contains(where: { $0.name == name }), name != "_loop_vars", name != "_block_vars"
            else {
                throw Fault.failed("SyntaxError: keyword argument repeated: \(name)")
            }
            list.keywords.append((name, try expression(keyword.node("value"), scope)))
        }
        list.more = try node.maybe("dyn_args").map { try expression($0, scope) }
        list.moreKeywords = try node.maybe("dyn_kwargs").map { try expression($0, scope) }
        return list
    }
}

extension Expression {
    /// Does jinja compute this when it compiles?
    fileprivate var isConstant: Bool {
        func isConstant(_ list: ArgumentList) -> Bool {
            (list.positional + list.keywords.map(\.value) + [list.more, list.moreKeywords].compactMap { $0 })
                .allSatisfy(\.isConstant)
        }
        return switch self {
        case .constant: true
        case .name, .captured, .call: false
        case .list(let items), .tuple(let items), .concat(let items): items.allSatisfy(\.isConstant)
        case .dict(let pairs): pairs.allSatisfy { $0.key.isConstant && $0.value.isConstant }
        case .condition(let test, let then, let other): [test, then, other].compactMap { $0 }.allSatisfy(\.isConstant)
        case .filter(let name, let value, let list): Filters.lazy[name] == nil && value.isConstant && isConstant(list)
        case .test(_, let value, let list): value.isConstant && isConstant(list)
        case .item(let left, let right), .binary(_, let left, let right), .and(let left, let right),
            .or(let left, let right):
            left.isConstant && right.isConstant
        case .slice(let value, let start, let stop, let step):
            [value, start, stop, step].compactMap { $0 }.allSatisfy(\.isConstant)
        case .attribute(let value, _), .not(let value), .negative(let value), .positive(let value): value.isConstant
        case .compare(let first, let operands): first.isConstant && operands.allSatisfy { $0.1.isConstant }
        }
    }
}

extension Value {
    fileprivate var isNegative: Bool {
        switch self {
        case .int(let number): number < 0
        case .big(let number): number.negative
        case .float(let number): number.sign == .minus && !number.isNaN
        default: false
        }
    }
}
