extension Interpreter {
    func execute(_ statements: [Statement], _ activation: Activation) throws -> Flow {
        for statement in statements {
            let flow = try execute(statement, activation)
            if flow != .normal { return flow }
        }
        return .normal
    }

    private func execute(_ statement: Statement, _ activation: Activation) throws -> Flow {
        try step()
        switch statement {
        case .data(let text): try write(text)
        case .output(let expressions, let line):
            self.line = line
            for expression in expressions { try write(try str(try evaluate(expression, activation))) }
        case .branch(let branches, let other, let line):
            self.line = line
            for (test, body) in branches where try evaluate(test, activation).truth(self) {
                return try execute(body, activation)
            }
            return try execute(other, activation)
        case .loop(let loop, let line):
            self.line = line
            return try run(loop, activation)
        case .assign(let namespaces, let target, let value, let line):
            self.line = line
            for (variable, _) in namespaces {
                guard case .object(let object) = activation[variable], object is Namespace else {
                    throw Fault.failed("TemplateRuntimeError: cannot assign attribute on non-namespace object")
                }
            }
            try assign(target, try evaluate(value, activation), activation)
        case .macro(let variable, let code):
            activation[variable] = .object(Macro(code, activation, self))
        case .callBlock(let code, let callee, let list, let line):
            self.line = line
            let function = try evaluate(callee, activation)
            try writeString(try call(function, try evaluate(list, activation, caller: Macro(code, activation, self))))
        case .generation(let code):
            try writeString(try Macro(code, activation, self).call(Arguments(), self))
        case .filterBlock(let frame, let body, let filter, let line):
            self.line = line
            enter(frame, activation)
            let (text, flow) = try capture { try execute(body, activation) }
            guard flow == .normal else { return flow }
            try writeString(try withCaptured(text) { try evaluate(filter, activation) })
            leave(frame, activation)
        case .with(let frame, let pairs, let body, let line):
            self.line = line
            enter(frame, activation)
            for (target, value) in pairs { try assign(target, try evaluate(value, activation), activation) }
            let flow = try execute(body, activation)
            guard flow == .normal else { return flow }
            leave(frame, activation)
        case .scope(let frame, let body):
            enter(frame, activation)
            let flow = try execute(body, activation)
            guard flow == .normal else { return flow }
            leave(frame, activation)
        case .assignBlock(let frame, let body, let target, let filter, let line):
            self.line = line
            enter(frame, activation)
            let (text, flow) = try capture { try execute(body, activation) }
            guard flow == .normal else { return flow }
            let value =
                try filter.map { filter in try withCaptured(text) { try evaluate(filter, activation) } }
                ?? .string(text)
            try assign(target, value, activation)
            leave(frame, activation)
        case .evaluate(let expression, let line):
            self.line = line
            _ = try evaluate(expression, activation)
        case .leave(let flow): return flow
        }
        return .normal
    }

    /// Writes what jinja writes without str(): the result of a call block or filter block.
    private func writeString(_ value: Value) throws {
        guard let text = value.text else { throw Fault.failed("TypeError: expected str instance, \(value.type) found") }
        try write(text)
    }

    // MARK: Loops

    private func run(_ loop: Loop, _ activation: Activation) throws -> Flow {
        let iterable = try evaluate(loop.iterable, activation)
        guard loop.recursiveSlots != nil else {
            return try run(loop, iterable, activation, outside: activation, depth: 0)
        }
        try write(try recurse(loop, iterable, outside: activation, depth: 0))
        return .normal
    }

    /// The text of a recursive loop over `iterable`.
    func recurse(_ loop: Loop, _ iterable: Value, outside: Activation, depth: Int) throws -> Text {
        let inside = Activation(loop.recursiveSlots ?? 0, in: outside)
        return try capture { try run(loop, iterable, inside, outside: outside, depth: depth) }.0
    }

    private func run(_ loop: Loop, _ iterable: Value, _ activation: Activation, outside: Activation, depth: Int) throws
        -> Flow
    {
        var values = iterable
        if let test = loop.test { values = .iterator(try filtered(iterable, test, outside)) }
        let context = try loop.loopSlot.map { slot in
            activation.slots[slot] = nil
            let recurse = loop.recursiveSlots == nil ? nil : LoopContext.Recursion(loop: loop, outside: outside)
            return (slot, try LoopContext(values, recurse, depth, self))
        }
        let iterator = try context?.1.turns ?? iterate(values)
        var ended = false  // did any turn reach its end?
        loop: while let value = try iterator.next() {
            try step()
            try assign(loop.target, value, activation)
            if let (slot, context) = context { activation.slots[slot] = .object(context) }
            enter(loop.frame, activation)
            switch try execute(loop.body, activation) {
            case .normal: ended = true
            case .next: continue
            case .stop: break loop
            }
        }
        leave(loop.frame, activation)
        guard !ended, let frame = loop.elseFrame else { return .normal }
        enter(frame, activation)
        let flow = try execute(loop.elseBody, activation)
        leave(frame, activation)
        return flow
    }

    /// The values that a loop's condition lets through, tested when they are asked for.
    private func filtered(_ values: Value, _ test: LoopTest, _ outside: Activation) throws -> Generator {
        let inside = Activation(test.slots, in: outside)
        var source: Generator?
        return try Generator("generator", over: values.depth) { [unowned self] in
            if source == nil {
                enter(test.frame, inside)
                source = try iterate(values)
            }
            while let value = try source!.next() {
                try step()
                try assign(test.target, value, inside)
                if try evaluate(test.condition, inside).truth(self) { return try evaluate(test.yielded, inside) }
            }
            return nil
        }
    }
}
