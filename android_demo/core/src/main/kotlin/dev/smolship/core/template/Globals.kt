package dev.smolship.core.template

/** A value with attributes of its own. */
internal interface HelperValue {
    fun attribute(name: String): Any?
}

internal class Cycler(private val items: List<Any?>) : HelperValue {
    private var at = 0

    override fun attribute(name: String): Any? = when (name) {
        "items" -> TupleValue(items)
        "pos" -> whole(at)
        "current" -> items[at]
        "next" -> native(name, "") { items[at].also { at = (at + 1) % items.size } }
        "reset" ->
            native(name, "") {
                at = 0
                null
            }
        else -> Absent
    }
}

internal class Joiner(private val separator: Any?) :
    Function("joiner"),
    HelperValue {
    private var used = false

    override fun call(machine: Machine, arguments: Arguments): Any? {
        if (arguments.positional.isNotEmpty() || arguments.named.isNotEmpty()) refuse("joiner() takes no arguments")
        return if (used) separator else "".also { used = true }
    }

    override fun attribute(name: String): Any? = when (name) {
        "sep" -> separator
        "used" -> used
        else -> Absent
    }
}

private const val MOST_RANGE = 100_000

/** The functions that every template knows. */
internal fun globals(): Map<String, Any?> = mapOf(
    "range" to Native("range") { _, arguments -> range(arguments) },
    "dict" to DictFunction,
    "namespace" to Native("namespace") { machine, arguments -> namespace(machine, arguments) },
    "cycler" to
        Native("cycler") { _, arguments ->
            if (arguments.named.isNotEmpty()) refuse("cycler() got an unexpected keyword argument")
            if (arguments.positional.isEmpty()) refuse("at least one item has to be provided")
            Cycler(arguments.positional)
        },
    "joiner" to native("joiner", "sep?") { Joiner(it.value(0, ", ")) },
    "lipsum" to Native("lipsum") { _, _ -> unsupported("random text") },
    "raise_exception" to native("raise_exception", "message") { refuse(it.machine.str(it.value(0))) },
    "strftime_now" to native("strftime_now", "format") { strftime(it.machine.now, it.text(0)) },
)

private object DictFunction : Function("dict"), HelperValue {
    override fun call(machine: Machine, arguments: Arguments): Any? = machine.makeDict(arguments, name)

    override fun attribute(name: String): Any? = if (name == "fromkeys") {
        native(name, "iterable value? /", ::fromKeys)
    } else {
        Absent
    }
}

private fun range(arguments: Arguments): RangeValue {
    if (arguments.named.isNotEmpty()) refuse("range() takes no keyword arguments")
    val all =
        arguments.positional.map {
            val value = wholeOf(it) ?: refuse("'${typeName(it)}' object cannot be interpreted as an integer")
            if (value.bitLength() >= Int.SIZE_BITS) unsupported("a range of numbers beyond 32 bits")
            value.toLong()
        }
    val range =
        when (all.size) {
            1 -> RangeValue(0, all[0], 1)
            2 -> RangeValue(all[0], all[1], 1)
            3 -> RangeValue(all[0], all[1], all[2])
            else -> refuse("range expected 1 to 3 arguments, got ${all.size}")
        }
    if (range.step == 0L) refuse("range() arg 3 must not be zero")
    if (range.length > MOST_RANGE) refuse("Range too big. The sandbox blocks ranges larger than $MOST_RANGE.")
    return range
}

private fun namespace(machine: Machine, arguments: Arguments): NamespaceValue {
    val made = NamespaceValue(machine.makeDict(arguments, "namespace"))
    for (entry in made.attributes.entries) checkName(entry.key)
    return made
}

/** Refuses names that would reach into Python. */
internal fun checkName(name: Any?) {
    if (name is String && name.startsWith("_")) refuse("a namespace cannot hold '$name'")
}
