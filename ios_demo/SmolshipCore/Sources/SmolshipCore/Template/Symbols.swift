/// A function of Python that jinja would generate: the template, a macro, a call block, a recursive loop, a loop's test.
final class Function {
    let outer: Function?
    private var places: [String: Int] = [:]

    init(in outer: Function?) { self.outer = outer }

    var slots: Int { places.count }

    /// jinja names a variable by its frame's level, so frames of one level share it.
    func slot(_ name: String, level: Int) -> Int {
        let ident = "\(level)_\(name)"
        if let slot = places[ident] { return slot }
        places[ident] = places.count
        return places.count - 1
    }
}

/// Which variable a name means in a frame: jinja's idtracking, which decides it before anything runs.
final class Symbols {
    struct Reference { let function: Function, slot: Int }

    enum Load { case parameter, resolve(String), alias(Reference), unset }

    let function: Function
    private let level: Int
    private let parent: Symbols?
    private var references: [String: Reference] = [:]
    private var loads: [Int: Load] = [:]
    private var stores: Set<String> = []

    init(parent: Symbols?, function: Function) {
        (self.parent, self.function) = (parent, function)
        level = parent.map { $0.level + 1 } ?? 0
    }

    private init(copying other: Symbols) {
        (function, level, parent) = (other.function, other.level, other.parent)
        (references, loads, stores) = (other.references, other.loads, other.stores)
    }

    func reference(_ name: String) -> Reference? { references[name] ?? parent?.reference(name) }

    private func define(_ name: String, _ load: Load) {
        let slot = function.slot(name, level: level)
        references[name] = Reference(function: function, slot: slot)
        loads[slot] = load
    }

    func store(_ name: String) {
        stores.insert(name)
        guard references[name] == nil else { return }
        define(name, parent?.reference(name).map { .alias($0) } ?? .unset)
    }

    @discardableResult
    func parameter(_ name: String) -> Int {
        stores.insert(name)
        define(name, .parameter)
        return references[name]!.slot
    }

    func load(_ name: String) {
        if reference(name) == nil { define(name, .resolve(name)) }
    }

    /// Is the variable one that is always set: a parameter of a macro or loop?
    func isParameter(_ reference: Reference) -> Bool {
        if reference.function === function, let load = loads[reference.slot] {
            if case .parameter = load { return true }
            return false
        }
        return parent?.isParameter(reference) ?? false
    }

    func frame(_ variable: (Reference) -> Variable) -> Frame {
        Frame(
            loads: loads.sorted { $0.key < $1.key }.map { slot, load in
                switch load {
                case .parameter: (slot, .parameter)
                case .resolve(let name): (slot, .resolve(name))
                case .alias(let reference): (slot, .alias(variable(reference)))
                case .unset: (slot, .unset)
                }
            })
    }

    /// Takes the names of some part of the tree into account. `own`: the part is what this frame is of.
    func analyze(_ node: Node, own: Bool = false, branch: String = "body") throws {
        if own { return try analyzeOwn(node, branch) }
        switch node.kind {
        case "Name":
            switch node.text("ctx") {
            case "store": store(node.text("name"))
            case "param": parameter(node.text("name"))
            default: load(node.text("name"))
            }
        case "NSRef": load(node.text("name"))
        case "If":
            try analyze(node.node("test"))
            try merge(
                ["body", "elif_", "else_"].map { field in
                    let copy = Symbols(copying: self)
                    for child in node.nodes(field) { try copy.analyze(child) }
                    return copy
                })
        case "Macro": store(node.text("name"))
        case "Assign":
            try analyze(node.node("value"))
            try analyze(node.node("target"))
        case "For": try analyze(node.node("iter"))
        case "CallBlock": try analyze(node.node("call"))
        case "FilterBlock": try analyze(node.node("filter"))
        case "With": for value in node.nodes("values") { try analyze(value) }
        case "AssignBlock": try analyze(node.node("target"))
        case "Scope", "Generation": break
        default: for child in node.children { try analyze(child) }
        }
    }

    private func analyzeOwn(_ node: Node, _ branch: String) throws {
        switch node.kind {
        case "For":
            if branch != "else_" { try parameters(node.node("target")) }
            if branch == "test" {
                if let test = node.maybe("test") { try analyze(test) }
            } else {
                for child in node.nodes(branch) { try analyze(child) }
            }
        case "AssignBlock": for child in node.nodes("body") { try analyze(child) }
        case "CallBlock":
            for field in ["args", "defaults", "body"] { for child in node.nodes(field) { try analyze(child) } }
        case "With": for field in ["targets", "body"] { for child in node.nodes(field) { try analyze(child) } }
        default: for child in node.children { try analyze(child) }
        }
    }

    /// The names of a loop's target are set at each turn, whatever the tree calls them.
    private func parameters(_ target: Node) throws {
        if target.kind == "Name" {
            parameter(target.text("name"))
        } else {
            for child in target.children { try parameters(child) }
        }
    }

    /// The names of a condition's branches: set in any of them, they are those from outside where no branch ran.
    private func merge(_ branches: [Symbols]) throws {
        let fresh = branches.reduce(into: Set<String>()) { $0.formUnion($1.stores) }.subtracting(stores)
        for branch in branches {
            references.merge(branch.references) { $1 }
            loads.merge(branch.loads) { $1 }
            stores.formUnion(branch.stores)
        }
        for name in fresh {
            guard let own = references[name] else { continue }
            loads[own.slot] = parent?.reference(name).map { .alias($0) } ?? .resolve(name)
        }
    }
}

/// Which of the names are read in these nodes before they are set.
func undeclared(_ nodes: [Node], _ names: Set<String>) -> Set<String> {
    var (left, found) = (names, Set<String>())
    func visit(_ node: Node) {
        if node.kind == "Name" {
            let name = node.text("name")
            if node.text("ctx") == "load", left.contains(name) { found.insert(name) } else { left.remove(name) }
        } else {
            node.children.forEach(visit)
        }
    }
    nodes.forEach(visit)
    return found
}
