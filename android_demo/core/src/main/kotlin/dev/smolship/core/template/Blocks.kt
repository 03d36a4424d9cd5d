package dev.smolship.core.template

/** For loops. */
internal object Loops {
    private class Parts(
        val target: Target,
        val loopReference: String?,
        val frame: Frame,
        val body: Statement,
        val elseFrame: Frame,
        val otherwise: Statement?,
        val filter: ((Run, Any?) -> Generator)?,
    )

    fun compile(node: Node, frame: Frame): Statement {
        val recursive = node.flag("recursive")
        val parts = parts(node, frame, recursive)
        val iterable = Expressions.compile(node.node("iter"), frame)
        if (!recursive) return { run -> run(parts, run, iterable(run), 0, null) }
        return Statements.plain { run -> run.out.add(recursion(parts, run)(iterable(run), 0)) }
    }

    private fun parts(node: Node, frame: Frame, recursive: Boolean): Parts {
        val loopFrame = frame.inner(inLoop = true)
        val body = node.list("body")
        val extended = recursive || "loop" in Symbols.undeclared(body, setOf("loop"))
        val loopReference = if (extended) loopFrame.symbols.declareParameter("loop") else null
        loopFrame.symbols.declareTargets(node.node("target"))
        loopFrame.symbols.visitAll(body)
        val elseFrame = frame.inner(inLoop = frame.inLoop && !recursive)
        val elseBody = node.list("else_")
        elseFrame.symbols.visitAll(elseBody)
        val target = Targets.compile(node.node("target"), loopFrame)
        return Parts(
            target,
            loopReference,
            loopFrame,
            Statements.body(body, loopFrame),
            elseFrame,
            if (elseBody.isEmpty()) null else Statements.body(elseBody, elseFrame),
            node.nodeOrNull("test")?.let { filter(node.node("target"), it, frame) },
        )
    }

    private fun filter(targetNode: Node, test: Node, frame: Frame): (Run, Any?) -> Generator {
        val inner = frame.inner()
        inner.symbols.declareTargets(targetNode)
        inner.symbols.visit(test)
        val condition = Expressions.compile(test, inner)
        val target = Targets.compile(targetNode, inner)
        return { outer, iterable ->
            val run = outer.inner()
            Generator(
                iterator {
                    inner.enter(run)
                    for (item in run.machine.each(iterable)) {
                        target(run, item)
                        if (truth(condition(run))) yield(item)
                    }
                },
            )
        }
    }

    /** A recursive loop as a function of what is gone over and of the depth. */
    private fun recursion(parts: Parts, outer: Run): (Any?, Int) -> String {
        lateinit var self: (Any?, Int) -> String
        self = { iterable, depth -> outer.inner().also { run(parts, it, iterable, depth, self) }.out.toString() }
        return self
    }

    private fun run(parts: Parts, run: Run, iterable: Any?, depth: Int, recurse: ((Any?, Int) -> String)?): Signal {
        val source = parts.filter?.invoke(run, iterable) ?: iterable
        val loop = if (parts.loopReference == null) null else LoopValue(run.machine, source, depth, recurse)
        val items = if (loop == null) run.machine.each(source) else null
        var completed = false
        while (true) {
            val item = if (loop != null) {
                loop.next()
            } else if (items!!.hasNext()) {
                items.next()
            } else {
                Absent
            }
            if (item === Absent) break
            run.machine.step()
            parts.target(run, item)
            if (loop != null) run.variables[parts.loopReference!!] = loop
            parts.frame.enter(run)
            val signal = parts.body(run)
            if (signal == Signal.BREAK) break
            if (signal == Signal.NEXT) completed = true // as in jinja, a continue does not count for else
        }
        parts.frame.leave(run)
        if (completed || parts.otherwise == null) return Signal.NEXT
        parts.elseFrame.enter(run)
        return parts.otherwise.invoke(run).also { if (it == Signal.NEXT) parts.elseFrame.leave(run) }
    }
}

/** Macros and the bodies of call blocks. */
internal object Macros {
    private val SPECIAL = setOf("caller", "kwargs", "varargs")

    fun define(node: Node, frame: Frame): Statement {
        val macro = macro(node, frame, node.text("name"), node.children)
        val reference = frame.symbols.reference(node.text("name"))
        return Statements.plain { run -> run.variables[reference] = macro(run) }
    }

    fun callBlock(node: Node, frame: Frame): Statement {
        val caller = macro(node, frame, null, node.list("args") + node.list("defaults") + node.list("body"))
        val call = Expressions.call(node.node("call"), frame) { run -> caller(run) }
        return Statements.plain { run -> Statements.write(run, call(run)) }
    }

    /** {% generation %} calls its body at once. */
    fun generation(node: Node, frame: Frame): Statement {
        val body = macro(node, frame, null, node.list("body"), hasParameters = false)
        return Statements.plain { run -> Statements.write(run, body(run).call(run.machine, Arguments(emptyList()))) }
    }

    private fun notProvided(name: String): Expression = { Undefined("parameter '$name' was not provided") }

    private fun macro(
        node: Node,
        outer: Frame,
        name: String?,
        visited: List<Node>,
        hasParameters: Boolean = true,
    ): (Run) -> Macro {
        val frame = outer.inner(inLoop = false)
        val symbols = frame.symbols
        symbols.visitAll(visited)
        val parameters = if (hasParameters) node.list("args").map { it.text("name") } else emptyList()
        val defaults = if (hasParameters) node.list("defaults") else emptyList()
        if (defaults.size > parameters.size) node.wrong("defaults", "no more defaults than parameters")
        val special = Symbols.undeclared(node.list("body"), SPECIAL)
        if ("caller" in special && "caller" in parameters &&
            parameters.size - parameters.indexOf("caller") > defaults.size
        ) {
            refuse("line ${node.line}: the special \"caller\" argument must be omitted or be given a default")
        }
        val added = listOf("caller", "kwargs", "varargs").filter { it in special && it !in parameters }
        added.forEach { symbols.declareParameter(it) }
        symbols.visitAll(visited)
        val references = (parameters + added).map { symbols.reference(it) }
        val given = defaults.map { Expressions.compile(it, frame) }
        val body = Statements.body(node.list("body"), frame)
        return { definition ->
            Macro(name, parameters, "caller" in special, "kwargs" in added, "varargs" in added) { values ->
                val run = definition.inner()
                references.forEachIndexed { i, reference -> run.variables[reference] = values[i] }
                frame.enter(run)
                for (i in parameters.indices) {
                    if (values[i] !== Absent) continue
                    val default = given.getOrNull(i - (parameters.size - given.size)) ?: notProvided(parameters[i])
                    run.variables[references[i]] = default(run)
                }
                body(run)
                run.out.toString()
            }
        }
    }
}
