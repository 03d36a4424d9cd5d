package dev.smolship.core.template

/** The variables of a running template, macro or recursive loop, and those around it. */
internal class Variables(private val outer: Variables?) {
    private val values = HashMap<String, Any?>()

    operator fun set(reference: String, value: Any?) {
        values[reference] = value
    }

    /** The value; [Absent] where it is not set. */
    operator fun get(reference: String): Any? {
        var variables: Variables? = this
        while (variables != null) {
            val found = variables.values[reference]
            if (found != null || reference in variables.values) return found
            variables = variables.outer
        }
        refuse("the variable '${reference.substringBefore(':')}' is used outside of where it is set")
    }
}

/** Text that is being written, of at most [limit] characters. */
internal class Output(private val machine: Machine, private val limit: Long = Long.MAX_VALUE) {
    private val text = StringBuilder()
    private var size = 0L

    fun add(piece: String) {
        machine.step()
        size += pointCount(piece)
        if (size > limit) refuse("it writes more than $limit characters")
        machine.room(piece.length.toLong())
        text.append(piece)
    }

    override fun toString(): String = text.toString()
}

/** What statements and expressions run with. */
internal class Run(val machine: Machine, val context: Map<String, Any?>, val variables: Variables, val out: Output) {
    /** The same variables, written elsewhere: for what is captured. */
    fun capturing(): Run = Run(machine, context, variables, Output(machine))

    /** Variables of its own, inside these: for a macro or a recursive loop. */
    fun inner(): Run = Run(machine, context, Variables(variables), Output(machine))
}

internal enum class Signal { NEXT, BREAK, CONTINUE }

internal typealias Expression = (Run) -> Any?

internal typealias Statement = (Run) -> Signal

/** Sets a target to a value. */
internal typealias Target = (Run, Any?) -> Unit

/** Where a node stands: its names, and whether a loop can be left from there. */
internal class Frame(val symbols: Symbols, val inLoop: Boolean) {
    fun inner(inLoop: Boolean = this.inLoop) = Frame(Symbols(symbols), inLoop)

    /** Gives the frame's variables their first values. */
    fun enter(run: Run) {
        run.machine.step(symbols.loads.size.toLong())
        for ((reference, load) in symbols.loads) {
            when (load) {
                is Load.Resolve -> run.variables[reference] =
                    if (load.name in run.context) run.context[load.name] else Absent
                is Load.Alias -> run.variables[reference] = run.variables[load.reference]
                Load.Unset -> run.variables[reference] = Absent
                Load.Parameter -> {}
            }
        }
    }

    /** Takes the frame's variables away, also from macros that were defined inside. */
    fun leave(run: Run) {
        for (reference in symbols.loads.keys) run.variables[reference] = Absent
    }
}
