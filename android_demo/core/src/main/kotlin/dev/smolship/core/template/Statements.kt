package dev.smolship.core.template

/** Turns statements of a template into functions. */
internal object Statements {
    /** Statements one after the other; a break or continue ends them. */
    fun body(nodes: List<Node>, frame: Frame): Statement {
        val statements = nodes.map { compile(it, frame) }
        return { run ->
            var signal = Signal.NEXT
            for (statement in statements) {
                run.machine.step()
                signal = statement(run)
                if (signal != Signal.NEXT) break
            }
            signal
        }
    }

    private fun compile(node: Node, frame: Frame): Statement = when (node.kind) {
        "Output" -> output(node, frame)
        "If" -> condition(node, frame)
        "For" -> Loops.compile(node, frame)
        "Macro" -> Macros.define(node, frame)
        "CallBlock" -> Macros.callBlock(node, frame)
        "Generation" -> Macros.generation(node, frame)
        "FilterBlock" -> filterBlock(node, frame)
        "With" -> with(node, frame)
        "Scope" -> scope(node, frame)
        "Assign" -> assign(node, frame)
        "AssignBlock" -> assignBlock(node, frame)
        "ExprStmt" -> Expressions.compile(node.node("value"), frame).let { value -> plain { run -> value(run) } }
        "Break", "Continue" -> {
            if (!frame.inLoop) refuse("${node.kind} outside of a loop, on line ${node.line}")
            val signal = if (node.kind == "Break") Signal.BREAK else Signal.CONTINUE;
            { signal }
        }
        else -> node.wrong("node", "a statement")
    }

    fun plain(body: (Run) -> Unit): Statement = { run ->
        body(run)
        Signal.NEXT
    }

    private fun output(node: Node, frame: Frame): Statement {
        val parts = node.list("nodes").map { Expressions.compile(it, frame) }
        return plain { run -> for (part in parts) run.out.add(run.machine.str(part(run))) }
    }

    private fun condition(node: Node, frame: Frame): Statement {
        val branches =
            (listOf(node) + node.list("elif_")).map { branch ->
                Expressions.compile(branch.node("test"), frame) to body(branch.list("body"), frame)
            }
        val otherwise = body(node.list("else_"), frame)
        return { run -> (branches.firstOrNull { (test, _) -> holds(test, run) }?.second ?: otherwise)(run) }
    }

    private fun holds(test: Expression, run: Run): Boolean {
        run.machine.step()
        return truth(test(run))
    }

    /** What is written without being printed first must be text, as in jinja. */
    fun write(run: Run, value: Any?) =
        run.out.add(textOf(value) ?: refuse("sequence item: expected str instance, ${typeName(value)} found"))

    private fun filterBlock(node: Node, frame: Frame): Statement {
        val inner = frame.inner().also { it.symbols.visitAll(node.children) }
        val body = body(node.list("body"), inner)
        val filter = Expressions.compile(node.node("filter"), inner)
        return { run ->
            inner.enter(run)
            val captured = run.capturing()
            val signal = body(captured)
            if (signal == Signal.NEXT) {
                write(run, filter(captured))
                inner.leave(run)
            }
            signal
        }
    }

    private fun with(node: Node, frame: Frame): Statement {
        val inner = frame.inner().also { it.symbols.visitAll(node.list("targets") + node.list("body")) }
        val values = node.list("values").map { Expressions.compile(it, frame) }
        val targets = node.list("targets").map { Targets.compile(it, inner) }
        if (values.size != targets.size) node.wrong("values", "as many values as targets")
        val body = body(node.list("body"), inner)
        return { run ->
            inner.enter(run)
            targets.forEachIndexed { i, target -> target(run, values[i](run)) }
            body(run).also { if (it == Signal.NEXT) inner.leave(run) }
        }
    }

    private fun scope(node: Node, frame: Frame): Statement {
        val inner = frame.inner().also { it.symbols.visitAll(node.children) }
        val body = body(node.list("body"), inner)
        return { run ->
            inner.enter(run)
            body(run).also { if (it == Signal.NEXT) inner.leave(run) }
        }
    }

    private fun assign(node: Node, frame: Frame): Statement {
        val namespaces = Targets.namespaces(node.node("target"), frame)
        val value = Expressions.compile(node.node("value"), frame)
        val target = Targets.compile(node.node("target"), frame)
        return plain { run ->
            for (reference in namespaces) {
                if (run.variables[reference] !is NamespaceValue) {
                    refuse("cannot assign attribute on non-namespace object")
                }
            }
            target(run, value(run))
        }
    }

    private fun assignBlock(node: Node, frame: Frame): Statement {
        val inner = frame.inner().also { it.symbols.visitAll(node.list("body")) }
        val body = body(node.list("body"), inner)
        val filter = node.nodeOrNull("filter")?.let { Expressions.compile(it, inner) }
        val target = Targets.compile(node.node("target"), frame)
        return { run ->
            inner.enter(run)
            val captured = run.capturing()
            val signal = body(captured)
            if (signal == Signal.NEXT) {
                target(run, if (filter == null) captured.out.toString() else filter(captured))
                inner.leave(run)
            }
            signal
        }
    }
}

/** What is assigned to: names, tuples of them, attributes of namespaces. */
internal object Targets {
    fun compile(node: Node, frame: Frame): Target = when (node.kind) {
        "Name" -> frame.symbols.reference(node.text("name")).let { reference ->
            { run, value ->
                run.variables[reference] =
                    value
            }
        }
        "NSRef" -> attribute(frame.symbols.reference(node.text("name")), node.text("attr"))
        "Tuple" -> unpacking(node.list("items").map { compile(it, frame) })
        else -> node.wrong("node", "a target of an assignment")
    }

    /** The variables whose attributes a target sets. */
    fun namespaces(node: Node, frame: Frame): List<String> = if (node.kind == "NSRef") {
        listOf(frame.symbols.reference(node.text("name")))
    } else {
        node.children.flatMap { namespaces(it, frame) }
    }

    private fun attribute(reference: String, name: String): Target = { run, value ->
        val namespace =
            run.variables[reference] as? NamespaceValue ?: unsupported("setting an element of what is no namespace")
        checkName(name)
        run.machine.roomForItems(1)
        namespace.attributes[name] = value
    }

    private fun unpacking(targets: List<Target>): Target = { run, value ->
        run.machine.step(targets.size.toLong())
        val items = run.machine.each(value)
        val found = ArrayList<Any?>()
        while (items.hasNext() && found.size <= targets.size) found.add(items.next())
        if (found.size != targets.size) {
            val amount = if (found.size < targets.size) "not enough" else "too many"
            refuse("$amount values to unpack (expected ${targets.size})")
        }
        targets.forEachIndexed { i, target -> target(run, found[i]) }
    }
}
