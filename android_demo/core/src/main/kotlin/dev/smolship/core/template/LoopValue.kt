package dev.smolship.core.template

/** The variable `loop`, which looks ahead in what is gone over only when it is asked to. */
internal class LoopValue(
    private val machine: Machine,
    private val iterable: Any?,
    private val depth0: Int,
    private val recurse: ((Any?, Int) -> String)?,
) {
    private var items = machine.each(iterable)
    private var size: Int? = null
    private var after: Any? = Absent
    private var current: Any? = Absent
    private var before: Any? = Absent
    private var changedValue: Any? = Absent
    var index0 = -1
        private set

    /** The next element, [Absent] at the end. */
    fun next(): Any? {
        val found = peek()
        after = Absent
        if (found === Absent) return Absent
        index0++
        before = current
        current = found
        return found
    }

    private fun peek(): Any? {
        if (after === Absent && items.hasNext()) after = items.next()
        return after
    }

    fun length(): Int {
        size?.let { return it }
        val known = lengthOf(iterable)
        if (known != null) return known.also { size = it }
        val rest = ArrayList<Any?>()
        while (items.hasNext()) {
            machine.roomForItems(1)
            rest.add(items.next())
        }
        items = rest.iterator()
        return (rest.size + index0 + 1 + (if (after === Absent) 0 else 1)).also { size = it }
    }

    fun attribute(name: String): Any? = when (name) {
        "index0" -> whole(index0)
        "index" -> whole(index0 + 1)
        "first" -> index0 == 0
        "last" -> peek() === Absent
        "length" -> whole(length())
        "revindex" -> whole(length() - index0)
        "revindex0" -> whole(length() - index0 - 1)
        "depth" -> whole(depth0 + 1)
        "depth0" -> whole(depth0)
        "previtem" -> if (index0 == 0) Undefined("there is no previous item") else before
        "nextitem" -> peek().let { if (it === Absent) Undefined("there is no next item") else it }
        "cycle" -> Native(name) { _, arguments -> cycle(arguments) }
        "changed" -> Native(name) { _, arguments -> changed(arguments) }
        else -> Absent
    }

    private fun cycle(arguments: Arguments): Any? {
        val items = arguments.positional
        if (arguments.named.isNotEmpty()) refuse("cycle() got an unexpected keyword argument")
        if (items.isEmpty()) refuse("no items for cycling given")
        return items[index0 % items.size]
    }

    private fun changed(arguments: Arguments): Boolean {
        if (arguments.named.isNotEmpty()) refuse("changed() got an unexpected keyword argument")
        val value = TupleValue(arguments.positional)
        if (changedValue !== Absent && machine.equal(changedValue, value)) return false
        changedValue = value
        return true
    }

    fun call(machine: Machine, arguments: Arguments): Any? {
        val render = recurse ?: refuse("The loop must have the 'recursive' marker to be called recursively.")
        val iterable = LOOP.bind(machine, arguments).value(0)
        return machine.deeper { render(iterable, depth0 + 1) }
    }

    private companion object {
        val LOOP = Signature("loop", "iterable")
    }
}
