package dev.smolship.core.template

/** A macro, or the body of a call block: [body] gets the arguments of [parameters], then the special ones. */
internal class Macro(
    val title: String?,
    private val parameters: List<String>,
    private val takesCaller: Boolean,
    private val takesNames: Boolean,
    private val takesRest: Boolean,
    private val body: (List<Any?>) -> String,
) : Function(title ?: "caller"),
    HelperValue {
    override fun call(machine: Machine, arguments: Arguments): Any? {
        val given = arguments.positional
        val names = LinkedHashMap(arguments.named)
        val values = ArrayList<Any?>(given.take(parameters.size))
        var foundCaller = values.size == parameters.size && "caller" in parameters
        for (name in parameters.drop(values.size)) {
            values.add(if (name in names) names.remove(name) else Absent)
            if (name == "caller") foundCaller = true
        }
        if (takesCaller && !foundCaller) {
            values.add(names.remove("caller") ?: Undefined("No caller defined"))
        }
        if (takesNames) {
            values.add(DictValue().also { dict -> for ((name, value) in names) dict[name] = value })
        } else if (names.isNotEmpty()) {
            refuse("macro '$name' takes no keyword argument '${names.keys.first()}'")
        }
        if (takesRest) {
            values.add(TupleValue(given.drop(parameters.size)))
        } else if (given.size > parameters.size) {
            refuse("macro '$name' takes not more than ${parameters.size} argument(s)")
        }
        return machine.deeper { body(values) }
    }

    override fun attribute(name: String): Any? = when (name) {
        "name" -> title
        "arguments" -> TupleValue(parameters)
        "catch_kwargs" -> takesNames
        "catch_varargs" -> takesRest
        "caller" -> takesCaller
        "explicit_caller" -> "caller" in parameters
        else -> Absent
    }
}
