/// Where a part of the template stands: what its names mean, and what Python would allow there.
struct Scope {
    var symbols: Symbols
    /// Inside a condition, unknown filters and tests fail only when they are called.
    var soft = false
    /// Loops around this in the same function of Python.
    var loops = 0
    /// In the defaults of a macro's parameters, parameters may not be set yet.
    var inDefaults = false

    func inner(_ symbols: Symbols) -> Scope { Scope(symbols: symbols, loops: loops) }

    func variable(_ name: String) throws -> Variable {
        guard let reference = symbols.reference(name) else {
            throw Fault.failed("AssertionError: '\(name)' is used where jinja does not look for names")
        }
        return variable(reference)
    }

    func variable(_ reference: Symbols.Reference) -> Variable {
        var (hops, function) = (0, symbols.function)
        while function !== reference.function, let outer = function.outer { (hops, function) = (hops + 1, outer) }
        return Variable(hops: hops, slot: reference.slot)
    }

    var frame: Frame { symbols.frame(variable) }
}

/// Makes statements of syntax trees, in the way jinja makes Python of them.
enum Compiler {
    static func compile(_ program: Json) throws -> CompiledTemplate {
        guard let object = program.objectValue, object["schema"]?.intValue == Template.schema else {
            throw Refusal(
                "template.json cannot be used", got: "schema \(shown(program["schema"]))",
                expected: "schema \(Template.schema)",
                todo: "update the app, or export the bundle again")
        }
        for key in object.keys where !["schema", "source_sha256", "body"].contains(key) {
            throw Refusal("template.json has an unknown key", got: key, todo: "update the app")
        }
        guard let body = object["body"]?.arrayValue else {
            throw Refusal(
                "template.json cannot be used", got: "body: \(shown(object["body"]))", expected: "a list of nodes")
        }
        do {
            return try template(body.map { try Node($0) })
        } catch let fault as Fault {
            throw Refusal(
                "the chat template cannot be used", got: fault.message,
                todo: "use another model's bundle, or an engine with a template of its own")
        }
    }

    private static func template(_ body: [Node]) throws -> CompiledTemplate {
        let function = Function(in: nil)
        let symbols = Symbols(parent: nil, function: function)
        let selfSlot = undeclared(body, ["self"]).isEmpty ? nil : symbols.parameter("self")
        for node in body { try symbols.analyze(node) }
        let scope = Scope(symbols: symbols)
        let statements = try body.flatMap { try statement($0, scope) }
        return CompiledTemplate(frame: scope.frame, slots: function.slots, selfSlot: selfSlot, body: statements)
    }

    private static func statements(_ nodes: [Node], _ scope: Scope) throws -> [Statement] {
        try nodes.flatMap { try statement($0, scope) }
    }

    private static func statement(_ node: Node, _ scope: Scope) throws -> [Statement] {
        switch node.kind {
        case "Output": return try output(node, scope)
        case "For": return [.loop(try loop(node, scope), line: node.line)]
        case "If":
            var soft = scope
            soft.soft = true
            let branches = try ([node] + node.nodes("elif_")).map { branch in
                guard branch.kind == "If" else { throw unknown(branch, "a condition's branch") }
                return (
                    test: try expression(branch.node("test"), soft), body: try statements(branch.nodes("body"), soft)
                )
            }
            return [.branch(branches, other: try statements(node.nodes("else_"), soft), line: node.line)]
        case "Macro": return [.macro(try scope.variable(node.text("name")), try macro(node, scope))]
        case "CallBlock":
            let call = try node.node("call")
            guard call.kind == "Call" else { throw unknown(call, "a call") }
            let code = try macro(node, scope)
            let (callee, list) = (try expression(call.node("value"), scope), try arguments(call, scope))
            guard !list.keywords.contains(where: { $0.name == "caller" }) else {
                throw Fault.failed("SyntaxError: keyword argument repeated: caller")
            }
            return [.callBlock(code, callee: callee, list, line: node.line)]
        case "Generation": return [.generation(try macro(node, scope))]
        case "FilterBlock":
            let inner = scope.inner(Symbols(parent: scope.symbols, function: scope.symbols.function))
            try inner.symbols.analyze(node, own: true)
            let (body, filter) = (try statements(node.nodes("body"), inner), try expression(node.node("filter"), inner))
            return [.filterBlock(inner.frame, body, filter: filter, line: node.line)]
        case "With":
            let inner = scope.inner(Symbols(parent: scope.symbols, function: scope.symbols.function))
            try inner.symbols.analyze(node, own: true)
            let pairs = try zip(node.nodes("targets"), node.nodes("values")).map {
                (target: try target($0, inner), value: try expression($1, scope))
            }
            return [.with(inner.frame, pairs, try statements(node.nodes("body"), inner), line: node.line)]
        case "Scope":
            let inner = scope.inner(Symbols(parent: scope.symbols, function: scope.symbols.function))
            try inner.symbols.analyze(node, own: true)
            return [.scope(inner.frame, try statements(node.nodes("body"), inner))]
        case "Assign":
            var namespaces: [(Variable, String)] = []
            try find("NSRef", in: node) { namespaces.append((try scope.variable($0.text("name")), $0.text("name"))) }
            return [
                .assign(
                    namespaces: namespaces, try target(node.node("target"), scope),
                    try expression(node.node("value"), scope),
                    line: node.line)
            ]
        case "AssignBlock":
            let inner = scope.inner(Symbols(parent: scope.symbols, function: scope.symbols.function))
            try inner.symbols.analyze(node, own: true)
            let (body, filter) = (
                try statements(node.nodes("body"), inner), try node.maybe("filter").map { try expression($0, inner) }
            )
            return [
                .assignBlock(inner.frame, body, try target(node.node("target"), scope), filter: filter, line: node.line)
            ]
        case "ExprStmt": return [.evaluate(try expression(node.node("value"), scope), line: node.line)]
        case "Break", "Continue":
            guard scope.loops > 0 else {
                throw Fault.failed("SyntaxError: '\(node.kind.lowercased())' outside loop, at line \(node.line)")
            }
            return [.leave(node.kind == "Break" ? .stop : .next)]
        default: throw unknown(node, "a statement")
        }
    }

    private static func output(_ node: Node, _ scope: Scope) throws -> [Statement] {
        var (made, pending): ([Statement], [Expression]) = ([], [])
        for child in node.nodes("nodes") {
            if child.kind == "TemplateData" {
                if !pending.isEmpty { made.append(.output(pending, line: node.line)) }
                pending = []
                made.append(.data(Text(of: child.text("data"))))
            } else {
                pending.append(try expression(child, scope))
            }
        }
        return pending.isEmpty ? made : made + [.output(pending, line: node.line)]
    }

    private static func loop(_ node: Node, _ scope: Scope) throws -> Loop {
        let (recursive, outer) = (node.flag("recursive"), scope.symbols)
        let function = recursive ? Function(in: outer.function) : outer.function
        guard scope.loops < 20 else { throw Fault.failed("SyntaxError: too many statically nested blocks") }
        try find("Name", in: node) {
            guard $0.text("ctx") != "store" || $0.text("name") != "loop" else {
                throw Fault.failed("TemplateAssertionError: Can't assign to special loop variable in for-loop target")
            }
        }
        var body = Scope(symbols: Symbols(parent: outer, function: function), loops: recursive ? 1 : scope.loops + 1)
        let loop = Loop()
        if recursive || !undeclared(node.nodes("body"), ["loop"]).isEmpty {
            loop.loopSlot = body.symbols.parameter("loop")
        }
        try body.symbols.analyze(node, own: true)
        body.soft = false
        loop.iterable = try expression(node.node("iter"), scope)
        loop.target = try target(node.node("target"), body)
        if node.maybe("test") != nil { loop.test = try test(node, outer) }
        loop.body = try statements(node.nodes("body"), body)
        loop.frame = body.frame
        if !node.nodes("else_").isEmpty {
            let other = Scope(symbols: Symbols(parent: outer, function: function), loops: recursive ? 0 : scope.loops)
            try other.symbols.analyze(node, own: true, branch: "else_")
            loop.elseBody = try statements(node.nodes("else_"), other)
            loop.elseFrame = other.frame
        }
        if recursive { loop.recursiveSlots = function.slots }
        return loop
    }

    private static func test(_ node: Node, _ outer: Symbols) throws -> LoopTest {
        let function = Function(in: outer.function)
        let scope = Scope(symbols: Symbols(parent: outer, function: function))
        try scope.symbols.analyze(node, own: true, branch: "test")
        let (target, condition) = (try target(node.node("target"), scope), try expression(node.node("test"), scope))
        return LoopTest(
            frame: scope.frame, slots: function.slots, target: target, condition: condition, yielded: read(target))
    }

    /// The values that a target was given.
    private static func read(_ target: Target) -> Expression {
        switch target {
        case .variable(let variable): .name(variable, "", checked: false)
        case .attribute: .constant(.none)  // no loop has such a target
        case .tuple(let items): .tuple(items.map(read))
        }
    }

    private static func macro(_ node: Node, _ scope: Scope) throws -> MacroCode {
        let (code, function) = (MacroCode(), Function(in: scope.symbols.function))
        let symbols = Symbols(parent: scope.symbols, function: function)
        try symbols.analyze(node, own: true)
        for argument in node.nodes("args") where argument.kind != "Name" || argument.text("ctx") != "param" {
            throw unknown(argument, "a parameter's name")
        }
        let (names, defaults) = (node.nodes("args").map { $0.text("name") }, node.nodes("defaults"))
        guard defaults.count <= names.count else { throw unknown(node, "as many defaults as parameters at most") }
        let special = undeclared(node.nodes("body"), ["caller", "kwargs", "varargs"])
        let first = names.count - defaults.count  // of those with a default
        code.name = node.kind == "Macro" ? node.text("name") : nil
        if special.contains("caller") {
            code.usesCaller = true
            if let place = names.firstIndex(of: "caller") {
                guard place >= first else {
                    throw Fault.failed(
                        "TemplateAssertionError: the special \"caller\" argument must be omitted or be given a default")
                }
            } else {
                code.callerSlot = symbols.parameter("caller")
            }
        }
        if special.contains("kwargs"), !names.contains("kwargs") { code.keywordsSlot = symbols.parameter("kwargs") }
        if special.contains("varargs"), !names.contains("varargs") { code.moreSlot = symbols.parameter("varargs") }
        try symbols.analyze(node, own: true)
        var inner = Scope(symbols: symbols)
        inner.inDefaults = true
        for (place, name) in names.enumerated() {
            guard Set(names).count == names.count else {
                throw Fault.failed("SyntaxError: duplicate argument '\(name)' of a macro")
            }
            let fallback = try place >= first ? expression(defaults[place - first], inner) : nil
            code.parameters.append((name, try scope.inner(symbols).variable(name).slot, fallback))
        }
        inner.inDefaults = false
        code.body = try statements(node.nodes("body"), inner)
        code.frame = inner.frame
        code.slots = function.slots
        return code
    }

    private static func target(_ node: Node, _ scope: Scope) throws -> Target {
        switch node.kind {
        case "Name": return .variable(try scope.variable(node.text("name")))
        case "NSRef": return .attribute(try scope.variable(node.text("name")), node.text("attr"))
        case "Tuple": return .tuple(try node.nodes("items").map { try target($0, scope) })
        default: throw unknown(node, "a target of an assignment")
        }
    }

    private static func find(_ kind: String, in node: Node, _ found: (Node) throws -> Void) throws {
        for child in node.children {
            if child.kind == kind { try found(child) }
            try find(kind, in: child, found)
        }
    }

    static func unknown(_ node: Node, _ expected: String) -> Refusal {
        Refusal("template.json cannot be used", got: "\(node.kind) at line \(node.line)", expected: expected)
    }
}
