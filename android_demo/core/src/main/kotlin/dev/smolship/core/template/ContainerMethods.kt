package dev.smolship.core.template

private fun method(name: String, parameters: String, body: (Any?, Bound) -> Any?): Pair<String, Method> =
    name to Fixed(name, parameters, body)

private val COUNT =
    method("count", "value /") { self, a ->
        whole(sequenceItems(a.machine, self).count { a.machine.same(it, a.value(0)) })
    }

private val INDEX =
    method("index", "value start? stop? /") { self, a ->
        val items = sequenceItems(a.machine, self)
        if (self is RangeValue && a.has(1)) refuse("range.index() takes exactly one argument")
        val bound = { i: Int, default: Int ->
            if (a.has(i)) clampIndex(a.value(i) ?: refuse("indices must be integers"), items.size, 0) else default
        }
        val start = bound(1, 0)
        val stop = bound(2, items.size)
        val found = (start until stop).firstOrNull { a.machine.same(items[it], a.value(0)) }
        whole(found ?: refuse("${a.machine.repr(a.value(0))} is not in the ${typeName(self)}"))
    }

private fun sequenceItems(machine: Machine, self: Any?): List<Any?> = itemsOf(self) ?: machine.elements(self)

private fun mutating(vararg names: String): List<Pair<String, Method>> =
    names.map { name -> method(name, "") { _, _ -> refuse("$name is not safe in a template") } }

/** The methods of tuples, which ranges have too. */
internal val TUPLE_METHODS: Map<String, Method> = mapOf(COUNT, INDEX)

internal val LIST_METHODS: Map<String, Method> =
    TUPLE_METHODS +
        method("copy", "") { self, a -> ListValue(a.machine.elements(self)) } +
        mutating("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort")

private fun view(kind: DictView.Kind) =
    method(kind.name.lowercase(java.util.Locale.ROOT), "") { self, _ -> DictView(kind, self as DictValue) }

internal val DICT_METHODS: Map<String, Method> =
    DictView.Kind.values().associate { view(it) } +
        method("get", "key default? /") { self, a ->
            val entry = (self as DictValue).find(a.value(0))
            if (entry == null) a.value(1) else entry.value
        } +
        method("copy", "") { self, a ->
            a.machine.roomForItems((self as DictValue).size.toLong())
            self.copy()
        } +
        method("fromkeys", "iterable value? /") { _, a -> fromKeys(a) } +
        mutating("clear", "pop", "popitem", "setdefault", "update")

internal fun fromKeys(a: Bound): DictValue = DictValue().also { made ->
    for (key in a.machine.each(a.value(0))) {
        a.machine.roomForItems(1)
        made[key] = a.value(1)
    }
}

/** dict(…) and namespace(…): a dictionary or pairs, then names. */
internal fun Machine.makeDict(arguments: Arguments, what: String): DictValue {
    if (arguments.positional.size > 1) refuse("$what expected at most 1 argument, got ${arguments.positional.size}")
    val made = DictValue()
    for (source in arguments.positional) {
        if (source is Undefined) refuse(source.message)
        if (source is DictValue) {
            roomForItems(source.size.toLong())
            for (entry in source.entries) made[entry.key] = entry.value
        } else {
            for (pair in each(source)) {
                val items = elements(pair)
                if (items.size != 2) {
                    refuse("dictionary update sequence element has length ${items.size}; 2 is required")
                }
                made[items[0]] = items[1]
            }
        }
    }
    for ((name, value) in arguments.named) made[name] = value
    roomForItems(made.size.toLong())
    return made
}
