package dev.smolship.core.template

private val BINARY = mapOf(
    "Add" to "+", "Sub" to "-", "Mul" to "*", "Div" to "/", "FloorDiv" to "//", "Mod" to "%",
    "Pow" to "**",
)
private val COMPARED =
    mapOf(
        "eq" to "==", "ne" to "!=", "gt" to ">", "gteq" to ">=", "lt" to "<", "lteq" to "<=", "in" to "in",
        "notin" to "not in",
    )

/** Turns expressions of a template into functions. */
internal object Expressions {
    fun compile(node: Node, frame: Frame): Expression = when (node.kind) {
        "Const" -> constant(node.constant())
        "TemplateData" -> constant(node.text("data"))
        "Name" -> name(node.text("name"), frame)
        "Tuple" -> items(node, frame).let { items -> { run -> TupleValue(made(run, items)) } }
        "List" -> items(node, frame).let { items -> { run -> ListValue(made(run, items)) } }
        "Dict" -> dict(node, frame)
        "CondExpr" -> condition(node, frame)
        "Filter" -> filter(node, frame)
        "Test" -> test(node, frame)
        "Call" -> call(node, frame, null)
        "Getitem" -> item(node, frame)
        "Getattr" -> attribute(node, frame)
        "Concat" -> concat(node, frame)
        "Compare" -> compare(node, frame)
        "And" -> pair(node, frame) { left, right -> { run -> left(run).let { if (truth(it)) right(run) else it } } }
        "Or" -> pair(node, frame) { left, right -> { run -> left(run).let { if (truth(it)) it else right(run) } } }
        "Not" -> compile(node.node("value"), frame).let { value -> { run -> !truth(value(run)) } }
        "Neg", "Pos" -> unary(if (node.kind == "Neg") "-" else "+", compile(node.node("value"), frame))
        in BINARY -> binary(node, frame)
        else -> node.wrong("node", "an expression")
    }

    private fun constant(value: Any?): Expression = { value }

    private fun name(name: String, frame: Frame): Expression {
        val reference = frame.symbols.reference(name)
        return { run ->
            val found = run.variables[reference]
            if (found === Absent) Undefined("'$name' is undefined") else found
        }
    }

    private fun items(node: Node, frame: Frame): List<Expression> = node.list("items").map { compile(it, frame) }

    private fun made(run: Run, items: List<Expression>): List<Any?> {
        run.machine.roomForItems(items.size.toLong())
        return items.map { it(run) }
    }

    private fun dict(node: Node, frame: Frame): Expression {
        val pairs = node.list("items").map { compile(it.node("key"), frame) to compile(it.node("value"), frame) }
        return { run ->
            run.machine.roomForItems(pairs.size * 2L)
            DictValue().also { dict -> for ((key, value) in pairs) dict[key(run)] = value(run) }
        }
    }

    private fun condition(node: Node, frame: Frame): Expression {
        val test = compile(node.node("test"), frame)
        val yes = compile(node.node("expr1"), frame)
        val no = node.nodeOrNull("expr2")?.let { compile(it, frame) }
        return { run ->
            if (truth(test(run))) {
                yes(run)
            } else if (no != null) {
                no(run)
            } else {
                Undefined("the inline if-expression on line ${node.line} evaluated to false and has no else")
            }
        }
    }

    /** A filter; without a value it is for what was captured around it. */
    private fun filter(node: Node, frame: Frame): Expression {
        val name = node.text("name")
        val value: Expression = node.nodeOrNull("value")?.let { compile(it, frame) } ?: { run -> run.out.toString() }
        val arguments = arguments(node, frame, null)
        return { run -> value(run).let { run.machine.filter(name, it, arguments(run)) } }
    }

    private fun test(node: Node, frame: Frame): Expression {
        val name = node.text("name")
        val value = compile(node.node("value"), frame)
        val arguments = arguments(node, frame, null)
        return { run -> value(run).let { run.machine.test(name, it, arguments(run)) } }
    }

    /** A call; that of a call block hands over its [caller]. */
    fun call(node: Node, frame: Frame, caller: Expression?): Expression {
        val callee = compile(node.node("value"), frame)
        val arguments = arguments(node, frame, caller)
        return { run -> callee(run).let { run.machine.call(it, arguments(run)) } }
    }

    private fun arguments(node: Node, frame: Frame, caller: Expression?): (Run) -> Arguments {
        val positional = node.list("args").map { compile(it, frame) }
        val named = node.list("kwargs").map { it.text("key") to compile(it.node("value"), frame) }
        val all = if (caller == null) named else named + ("caller" to caller)
        if (all.distinctBy { it.first }.size < all.size) refuse("keyword argument repeated on line ${node.line}")
        val rest = node.nodeOrNull("dyn_args")?.let { compile(it, frame) }
        val names = node.nodeOrNull("dyn_kwargs")?.let { compile(it, frame) }
        if (all.isEmpty() && rest == null && names == null) return { run -> Arguments(positional.map { it(run) }) }
        return { run ->
            val values = positional.mapTo(ArrayList()) { it(run) }
            if (rest != null) values.addAll(run.machine.elements(rest(run)))
            val byName = LinkedHashMap<String, Any?>()
            for ((name, value) in all) byName[name] = value(run)
            if (names != null) addNames(byName, names(run))
            Arguments(values, byName)
        }
    }

    private fun addNames(named: MutableMap<String, Any?>, value: Any?) {
        if (value is Undefined) refuse(value.message)
        val dict = value as? DictValue ?: refuse("argument after ** must be a mapping, not ${typeName(value)}")
        for (entry in dict.entries) {
            val name = textOf(entry.key) ?: refuse("keywords must be strings, not ${typeName(entry.key)}")
            if (name in named) refuse("got multiple values for keyword argument '$name'")
            named[name] = entry.value
        }
    }

    private fun item(node: Node, frame: Frame): Expression {
        val value = compile(node.node("value"), frame)
        val key = node.node("arg")
        if (key.kind == "Slice") {
            val (start, stop, step) = listOf("start", "stop", "step").map {
                key.nodeOrNull(it)?.let { part -> compile(part, frame) }
            }
            return { run -> run.machine.slice(value(run), start?.invoke(run), stop?.invoke(run), step?.invoke(run)) }
        }
        val compiled = compile(key, frame)
        return { run -> value(run).let { run.machine.getItem(it, compiled(run)) } }
    }

    private fun attribute(node: Node, frame: Frame): Expression {
        val value = compile(node.node("value"), frame)
        val name = node.text("attr")
        return { run -> run.machine.getAttribute(value(run), name) }
    }

    private fun concat(node: Node, frame: Frame): Expression {
        val parts = node.list("nodes").map { compile(it, frame) }
        return { run ->
            val out = Output(run.machine)
            for (part in parts) out.add(run.machine.str(part(run)))
            out.toString()
        }
    }

    private fun compare(node: Node, frame: Frame): Expression {
        val first = compile(node.node("expr"), frame)
        val rest =
            node.list("ops").map {
                val op = COMPARED[it.text("op")] ?: it.wrong("op", "one of ${COMPARED.keys}")
                op to compile(it.node("expr"), frame)
            }
        return { run ->
            var left = first(run)
            rest.all { (op, expression) ->
                val right = expression(run)
                val holds =
                    when (op) {
                        "in" -> run.machine.contains(left, right)
                        "not in" -> !run.machine.contains(left, right)
                        else -> run.machine.compare(left, op, right)
                    }
                left = right
                holds
            }
        }
    }

    private fun pair(node: Node, frame: Frame, make: (Expression, Expression) -> Expression): Expression =
        make(compile(node.node("left"), frame), compile(node.node("right"), frame))

    private fun binary(node: Node, frame: Frame): Expression {
        val op = BINARY.getValue(node.kind)
        return pair(node, frame) { left, right -> { run -> run.machine.binary(op, left(run), right(run)) } }
    }

    private fun unary(op: String, value: Expression): Expression = { run -> run.machine.unary(op, value(run)) }
}
