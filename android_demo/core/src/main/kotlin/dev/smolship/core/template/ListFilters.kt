package dev.smolship.core.template

internal val LIST_FILTERS =
    filters(
        native("list", "value") { a -> ListValue(a.machine.elements(a.value(0))) },
        length("length"),
        length("count"),
        native("first", "seq") { a ->
            a.machine.each(a.value(0)).let {
                if (it.hasNext()) it.next() else Undefined("No first item, sequence was empty.")
            }
        },
        native("last", "seq") { a ->
            val items = backwards(a.machine, a.value(0)) ?: refuse("'${typeName(a.value(0))}' object is not reversible")
            if (items.hasNext()) items.next() else Undefined("No last item, sequence was empty.")
        },
        native("random", "seq") { unsupported("the filter random") },
        native("reverse", "value") { a ->
            val value = a.value(0)
            val text = textOf(value)
            if (text != null) {
                like(value, reversed(text))
            } else {
                backwards(a.machine, value)?.let { Generator(it) } ?: ListValue(a.machine.elements(value).reversed())
            }
        },
        native("join", "value d? attribute?", ::join),
        native("sort", "value reverse? case_sensitive? attribute?") { a ->
            val names: List<Any?> = textOf(a.value(3))?.split(',') ?: listOf(a.value(3))
            val getters = names.map { Getter(a.machine, it, ignoreCase = !a.flag(2)) }
            ListValue(
                a.machine.sorted(a.machine.elements(a.value(0)), a.flag(1)) { item ->
                    ListValue(getters.map { it(item) })
                },
            )
        },
        native("dictsort", "value case_sensitive? by? reverse?", ::dictSort),
        native("min", "value case_sensitive? attribute?") { extreme(it, "<") },
        native("max", "value case_sensitive? attribute?") { extreme(it, ">") },
        native("groupby", "value attribute default? case_sensitive?", ::groupBy),
        native("unique", "value case_sensitive? attribute?", ::unique),
        native("batch", "value linecount fill_with?", ::batch),
        native("slice", "value slices fill_with?", ::slices),
        native("items", "value") { a ->
            val value = a.value(0)
            Generator(
                iterator {
                    if (value !is Undefined) {
                        val dict = value as? DictValue ?: refuse("Can only get item pairs from a mapping.")
                        yieldAll(iterate(DictView(DictView.Kind.ITEMS, dict))!!)
                    }
                },
            )
        },
    )

private fun length(name: String): Function = native(name, "obj /") { a ->
    whole(lengthOf(a.value(0)) ?: refuse("object of type '${typeName(a.value(0))}' has no len()"))
}

/** Python's reversed; null where a value has no order that can be gone back. */
private fun backwards(machine: Machine, value: Any?): Iterator<Any?>? = when (value) {
    is String, is Markup, is ListValue, is TupleValue, is DictValue, is DictView, is RangeValue, is Undefined ->
        machine.elements(value).asReversed().iterator()
    else -> null
}

private fun join(a: Bound): String {
    val machine = a.machine
    val getter = Getter(machine, a.value(2))
    val separator = machine.str(a.value(1, ""))
    val out = StringBuilder()
    a.machine.each(a.value(0)).withIndex().forEach { (i, item) ->
        val text = machine.str(getter(item))
        machine.room(text.length.toLong() + separator.length)
        if (i > 0) out.append(separator)
        out.append(text)
    }
    return out.toString()
}

private fun dictSort(a: Bound): ListValue {
    val byKey =
        when (textOf(a.value(2, "key"))) {
            "key" -> true
            "value" -> false
            else -> refuse("You can only sort by either \"key\" or \"value\"")
        }
    val value = a.value(0)
    if (value is Undefined) refuse(value.message)
    val dict = value as? DictValue ?: refuse("'${typeName(value)}' object has no attribute 'items'")
    val sorted =
        a.machine.sorted(dict.entries.toList(), a.flag(3)) { entry ->
            val key = if (byKey) entry.key else entry.value
            if (a.flag(1)) key else withoutCase(key)
        }
    a.machine.roomForItems(sorted.size * 3L)
    return ListValue(sorted.map { TupleValue(listOf(it.key, it.value)) })
}

private fun extreme(a: Bound, op: String): Any? {
    val items = a.machine.each(a.value(0))
    if (!items.hasNext()) return Undefined("No aggregated item, sequence was empty.")
    val getter = Getter(a.machine, a.value(2), ignoreCase = !a.flag(1))
    var best = items.next()
    var key = getter(best)
    for (item in items) {
        val other = getter(item)
        if (a.machine.ordered(other, op, key)) {
            best = item
            key = other
        }
    }
    return best
}

private fun groupBy(a: Bound): ListValue {
    val machine = a.machine
    val sensitive = a.flag(3)
    val getter = Getter(machine, a.value(1), ignoreCase = !sensitive, default = a.value(2))
    val written = Getter(machine, a.value(1), default = a.value(2))
    val groups = ArrayList<Pair<Any?, ArrayList<Any?>>>()
    for (item in machine.sorted(machine.elements(a.value(0)), false, getter)) {
        val key = getter(item)
        if (groups.isEmpty() || !machine.same(groups.last().first, key)) groups.add(key to ArrayList())
        groups.last().second.add(item)
    }
    machine.roomForItems(groups.size * 3L)
    return ListValue(
        groups.map { (key, items) ->
            TupleValue(listOf(if (sensitive) key else written(items[0]), ListValue(items)), listOf("grouper", "list"))
        },
    )
}

private fun unique(a: Bound): Generator {
    val getter = Getter(a.machine, a.value(2), ignoreCase = !a.flag(1))
    return Generator(
        iterator {
            val seen = HashSet<Any?>()
            for (item in a.machine.each(a.value(0))) {
                a.machine.roomForItems(1)
                if (seen.add(hashKey(getter(item)))) yield(item)
            }
        },
    )
}

private fun batch(a: Bound): Generator = Generator(
    iterator {
        val size = a.int(1)
        val fill = a.value(2)
        var row = ArrayList<Any?>()
        for (item in a.machine.each(a.value(0))) {
            if (row.size == size) {
                yield(ListValue(row))
                row = ArrayList()
            }
            a.machine.roomForItems(1)
            row.add(item)
        }
        if (row.isNotEmpty()) {
            if (fill != null && row.size < size) {
                a.machine.roomForItems(size.toLong())
                while (row.size < size) row.add(fill)
            }
            yield(ListValue(row))
        }
    },
)

private fun slices(a: Bound): Generator = Generator(
    iterator {
        val items = a.machine.elements(a.value(0))
        val count = a.int(1)
        val fill = a.value(2)
        if (count == 0) refuse("integer division or modulo by zero")
        val size = floorDivide(whole(items.size), whole(count)).toInt()
        val extra = items.size - size * count
        var at = 0
        for (i in 0 until count) {
            val end = at + size + (if (i < extra) 1 else 0)
            val row = ArrayList(items.subList(at, end))
            a.machine.roomForItems(row.size + 1L)
            if (fill != null && i >= extra) row.add(fill)
            yield(ListValue(row))
            at = end
        }
    },
)
