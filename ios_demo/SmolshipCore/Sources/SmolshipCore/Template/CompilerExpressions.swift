extension Compiler {
    private static let operations: [String: BinaryOperator] = [
        "Add": .add, "Sub": .sub, "Mul": .mul, "Div": .div, "FloorDiv": .floorDiv, "Mod": .mod, "Pow": .pow,
    ]

    static func expression(_ node: Node, _ scope: Scope) throws -> Expression {
        func inner(_ field: String) throws -> Expression { try expression(node.node(field), scope) }
        if let operation = operations[node.kind] { return .binary(operation, try inner("left"), try inner("right")) }
        switch node.kind {
        case "TemplateData": return .constant(.text(node.text("data")))
        case "Const": return .constant(node.constant("value"))
        case "Name": return try name(node, scope)
        case "List": return .list(try node.nodes("items").map { try expression($0, scope) })
        case "Tuple": return .tuple(try node.nodes("items").map { try expression($0, scope) })
        case "Dict":
            return .dict(try node.nodes("items").map { pair in
                guard pair.kind == "Pair" else { throw unknown(pair, "a pair of key and value") }
                return (key: try expression(pair.node("key"), scope), value: try expression(pair.node("value"), scope))
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
                throw Fault.failed("TemplateAssertionError: No \(node.kind.lowercased()) named '\(name)', at line \(node.line)")
            }
            let value = try node.maybe("value").map { try expression($0, scope) } ?? .captured
            let list = try arguments(node, scope)
            return node.kind == "Filter" ? .filter(name, value, list) : .test(name, value, list)
        case "Call": return .call(try inner("value"), try arguments(node, scope))
        case "Getitem":
            let (value, place) = (try inner("value"), node.node("arg"))
            guard place.kind == "Slice" else { return .item(value, try expression(place, scope)) }
            func bound(_ field: String) throws -> Expression? { try place.maybe(field).map { try expression($0, scope) } }
            return .slice(value, try bound("start"), try bound("stop"), try bound("step"))
        case "Getattr": return .attribute(try inner("value"), node.text("attr"))
        case "Concat": return .concat(try node.nodes("nodes").map { try expression($0, scope) })
        case "Compare":
            return .compare(try inner("expr"), try node.nodes("ops").map { operand in
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

    private static func name(_ node: Node, _ scope: Scope) throws -> Expression {
        let name = node.text("name")
        guard let reference = scope.symbols.reference(name) else {
            throw Fault.failed("AssertionError: '\(name)' is used where jinja does not look for names")
        }
        let checked = scope.inDefaults && reference.function === scope.symbols.function || !scope.symbols.isParameter(reference)
        return .name(scope.variable(reference), name, checked: checked)
    }

    static func arguments(_ node: Node, _ scope: Scope) throws -> ArgumentList {
        var list = ArgumentList()
        list.positional = try node.nodes("args").map { try expression($0, scope) }
        for keyword in node.nodes("kwargs") {
            guard keyword.kind == "Keyword" else { throw unknown(keyword, "a keyword argument") }
            let name = keyword.text("key")
            guard !list.keywords.contains(where: { $0.name == name }), name != "_loop_vars", name != "_block_vars" else {
                throw Fault.failed("SyntaxError: keyword argument repeated: \(name)")
            }
            list.keywords.append((name, try expression(keyword.node("value"), scope)))
        }
        list.more = try node.maybe("dyn_args").map { try expression($0, scope) }
        list.moreKeywords = try node.maybe("dyn_kwargs").map { try expression($0, scope) }
        return list
    }
}
