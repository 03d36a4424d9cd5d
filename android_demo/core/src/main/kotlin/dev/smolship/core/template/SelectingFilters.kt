package dev.smolship.core.template

/** Filters that are generators, and those that look at what is there. */
internal val SELECTING_FILTERS =
    filters(
        native("default", "value default_value? boolean?", ::default),
        native("d", "value default_value? boolean?", ::default),
        native("attr", "obj name", ::attributeFilter),
        Native("map") { machine, arguments -> lazily(machine, arguments) { mapper(machine, it) } },
        selecting("select", keep = true, byAttribute = false),
        selecting("reject", keep = false, byAttribute = false),
        selecting("selectattr", keep = true, byAttribute = true),
        selecting("rejectattr", keep = false, byAttribute = true),
    )

private fun default(a: Bound): Any? {
    val value = a.value(0)
    return if (value is Undefined || (a.flag(2) && !truth(value))) a.value(1, "") else value
}

private fun attributeFilter(a: Bound): Any? {
    val value = a.value(0)
    if (value is Undefined) refuse(value.message)
    val found = a.machine.attribute(value, a.text(1))
    return if (found === Absent) Undefined("'${typeName(value)} object' has no attribute '${a.text(1)}'") else found
}

/** A generator that looks at its arguments when its first element is asked for, and not if there is none. */
private fun lazily(machine: Machine, arguments: Arguments, prepare: (Arguments) -> (Any?) -> Any?): Generator {
    val value = arguments.positional[0]
    return Generator(
        iterator {
            if (truth(value)) {
                val function = prepare(Arguments(arguments.positional.drop(1), arguments.named))
                for (item in machine.each(value)) {
                    val made = function(item)
                    if (made !== Absent) yield(made)
                }
            }
        },
    )
}

private fun mapper(machine: Machine, arguments: Arguments): (Any?) -> Any? {
    if (arguments.positional.isEmpty() && "attribute" in arguments.named) {
        val other = arguments.named.keys.firstOrNull { it != "attribute" && it != "default" }
        if (other != null) refuse("Unexpected keyword argument '$other'")
        return Getter(machine, arguments.named["attribute"], default = arguments.named["default"])
    }
    val first = arguments.positional.firstOrNull()
    if (arguments.positional.isEmpty()) refuse("map requires a filter argument")
    val name = textOf(first) ?: refuse("No filter named ${machine.repr(first)}.")
    val rest = Arguments(arguments.positional.drop(1), arguments.named)
    return { machine.filter(name, it, rest) }
}

private fun selecting(name: String, keep: Boolean, byAttribute: Boolean): Function = Native(name) { machine, all ->
    lazily(machine, all) { arguments ->
        val positional = arguments.positional
        if (byAttribute && positional.isEmpty()) refuse("Missing parameter for attribute name")
        val getter = Getter(machine, if (byAttribute) positional[0] else null)
        val rest = if (byAttribute) positional.drop(1) else positional
        val test: (Any?) -> Boolean =
            if (rest.isEmpty()) {
                { truth(it) }
            } else {
                val testName = textOf(rest[0]) ?: refuse("No test named ${machine.repr(rest[0])}.")
                val given = Arguments(rest.drop(1), arguments.named);
                { truth(machine.test(testName, it, given)) }
            }
        { item ->
            if (test(getter(item)) == keep) item else Absent
        }
    }
}
