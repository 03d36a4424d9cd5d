/// A node of jinja's syntax tree, checked field by field: what is not known is refused.
final class Node {
    enum Field {
        case absent, text(String), flag(Bool), constant(Value), node(Node), nodes([Node])
    }

    let kind: String
    let line: Int
    private let fields: [(name: String, value: Field)]

    private enum Kind { case text, flag, constant, node, maybe, nodes }

    /// jinja's classes with their fields, in jinja's order.
    private static let known: [String: [(String, Kind)]] = {
        let binary: [(String, Kind)] = [("left", .node), ("right", .node)]
        let unary: [(String, Kind)] = [("value", .node)]
        let arguments: [(String, Kind)] = [
            ("args", .nodes), ("kwargs", .nodes), ("dyn_args", .maybe), ("dyn_kwargs", .maybe),
        ]
        return [
            "Output": [("nodes", .nodes)],
            "TemplateData": [("data", .text)],
            "For": [
                ("target", .node), ("iter", .node), ("body", .nodes), ("else_", .nodes), ("test", .maybe),
                ("recursive", .flag),
            ],
            "If": [("test", .node), ("body", .nodes), ("elif_", .nodes), ("else_", .nodes)],
            "Macro": [("name", .text), ("args", .nodes), ("defaults", .nodes), ("body", .nodes)],
            "CallBlock": [("call", .node), ("args", .nodes), ("defaults", .nodes), ("body", .nodes)],
            "FilterBlock": [("body", .nodes), ("filter", .node)],
            "With": [("targets", .nodes), ("values", .nodes), ("body", .nodes)],
            "Scope": [("body", .nodes)],
            "Assign": [("target", .node), ("value", .node)],
            "AssignBlock": [("target", .node), ("filter", .maybe), ("body", .nodes)],
            "ExprStmt": unary,
            "Break": [], "Continue": [],
            "Generation": [("body", .nodes)],
            "Name": [("name", .text), ("ctx", .text)],
            "NSRef": [("name", .text), ("attr", .text)],
            "Const": [("value", .constant)],
            "Tuple": [("items", .nodes), ("ctx", .text)],
            "List": [("items", .nodes)],
            "Dict": [("items", .nodes)],
            "Pair": [("key", .node), ("value", .node)],
            "CondExpr": [("test", .node), ("expr1", .node), ("expr2", .maybe)],
            "Filter": [("value", .maybe), ("name", .text)] + arguments,
            "Test": [("value", .node), ("name", .text)] + arguments,
            "Keyword": [("key", .text), ("value", .node)],
            "Call": [("value", .node)] + arguments,
            "Getitem": [("value", .node), ("arg", .node), ("ctx", .text)],
            "Getattr": [("value", .node), ("attr", .text), ("ctx", .text)],
            "Slice": [("start", .maybe), ("stop", .maybe), ("step", .maybe)],
            "Concat": [("nodes", .nodes)],
            "Compare": [("expr", .node), ("ops", .nodes)],
            "Operand": [("op", .text), ("expr", .node)],
            "Add": binary, "Sub": binary, "Mul": binary, "Div": binary, "FloorDiv": binary, "Mod": binary,
            "Pow": binary,
            "And": binary, "Or": binary, "Not": unary, "Neg": unary, "Pos": unary,
        ]
    }()

    init(_ json: Json, depth: Int = 0) throws {
        guard depth < 190 else { throw Fault.limit("a template nested more than 190 deep") }
        guard let object = json.objectValue, let kind = object["node"]?.stringValue, let line = object["line"]?.intValue
        else {
            throw Refusal(
                "template.json has something that is not a node", got: shown(json),
                expected: "an object with node and line")
        }
        guard let schema = Node.known[kind] else {
            throw Refusal("template.json has a node that this app does not know", got: kind, todo: "update the app")
        }
        func wrong(_ expected: String, _ field: String) -> Refusal {
            Refusal(
                "template.json: \(kind) at line \(line) cannot be used", got: "\(field): \(shown(object[field]))",
                expected: expected)
        }
        for key in object.keys where key != "node" && key != "line" && !schema.contains(where: { $0.0 == key }) {
            throw wrong("no field of this name", key)
        }
        (self.kind, self.line) = (kind, line)
        fields = try schema.map { name, type in
            guard let value = object[name] else { throw wrong("the field \(name)", name) }
            switch (type, value) {
            case (.text, .string(let text)) where name != "ctx" || ["load", "store", "param"].contains(text):
                return (name, .text(text))
            case (.flag, .bool(let flag)): return (name, .flag(flag))
            case (.constant, _):
                guard let constant = Value(scalar: value) else {
                    throw wrong("null, true or false, a number or a text", name)
                }
                return (name, .constant(constant))
            case (.node, .object), (.maybe, .object): return (name, .node(try Node(value, depth: depth + 1)))
            case (.maybe, .null): return (name, .absent)
            case (.nodes, .array(let items)): return (name, .nodes(try items.map { try Node($0, depth: depth + 1) }))
            case (.nodes, .null): return (name, .nodes([]))
            default: throw wrong("\(type)", name)
            }
        }
    }

    private func field(_ name: String) -> Field { fields.first { $0.name == name }?.value ?? .absent }

    func text(_ name: String) -> String { if case .text(let text) = field(name) { text } else { "" } }
    func flag(_ name: String) -> Bool { if case .flag(let flag) = field(name) { flag } else { false } }
    func constant(_ name: String) -> Value { if case .constant(let value) = field(name) { value } else { .none } }
    func maybe(_ name: String) -> Node? { if case .node(let node) = field(name) { node } else { nil } }
    func nodes(_ name: String) -> [Node] { if case .nodes(let nodes) = field(name) { nodes } else { [] } }

    func node(_ name: String) throws -> Node {
        guard let found = maybe(name) else { throw Compiler.unknown(self, "a node with the field \(name)") }
        return found
    }

    /// The nodes of all fields, in jinja's order.
    var children: [Node] {
        fields.flatMap { _, value -> [Node] in
            switch value {
            case .node(let node): [node]
            case .nodes(let nodes): nodes
            default: []
            }
        }
    }
}

extension Value {
    /// What JSON has beside lists and objects.
    init?(scalar json: Json) {
        switch json {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .int(let value): self = .int(value)
        case .bigInt(let digits):
            guard let big = BigInt(digits: digits) else { return nil }
            self = big.value
        case .float(let value): self = .float(value)
        case .string(let value): self = .string(Text(of: value))
        case .array, .object: return nil
        }
    }

    init(_ json: Json) throws {
        switch json {
        case .array(let items): self = .list(try Items(items.map { try Value($0) }))
        case .object(let object):
            let dict = Dict()
            for (key, value) in object { try dict.set(.text(key), Value(value)) }
            self = .dict(dict)
        default:
            guard let value = Value(scalar: json) else { throw Fault.limit("a number of more than 4300 digits") }
            self = value
        }
    }
}
