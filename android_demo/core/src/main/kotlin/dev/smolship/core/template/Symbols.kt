package dev.smolship.core.template

/** How a variable of a frame gets its value where the frame is entered. */
internal sealed interface Load {
    data object Parameter : Load

    data object Unset : Load

    data class Resolve(val name: String) : Load

    data class Alias(val reference: String) : Load
}

/**
 * The names of one frame of a template, found before it runs, as jinja's compiler does: each frame has variables of its
 * own, which begin as copies of the outer ones where they are assigned to.
 */
internal class Symbols private constructor(val parent: Symbols?, private val level: Int, private val work: Work) {
    constructor(parent: Symbols?) : this(parent, (parent?.level ?: -1) + 1, parent?.work ?: Work())

    private val references = HashMap<String, String>()
    private val stores = LinkedHashSet<String>()
    val loads = LinkedHashMap<String, Load>()

    private fun define(name: String, load: Load): String {
        val reference = "$name:$level"
        references[name] = reference
        loads[reference] = load
        return reference
    }

    private fun find(name: String): String? = references[name] ?: parent?.find(name)

    fun reference(name: String): String = find(name) ?: refuse("the name '$name' is unknown where it is used")

    fun declareParameter(name: String): String {
        stores.add(name)
        return define(name, Load.Parameter)
    }

    private fun store(name: String) {
        stores.add(name)
        if (name in references) return
        val outer = parent?.find(name)
        define(name, if (outer == null) Load.Unset else Load.Alias(outer))
    }

    private fun load(name: String) {
        if (find(name) == null) define(name, Load.Resolve(name))
    }

    private fun copy(): Symbols = Symbols(parent, level, work).also {
        work.count(references.size)
        it.references.putAll(references)
        it.loads.putAll(loads)
        it.stores.addAll(stores)
    }

    /** After an if: what one of the branches assigns has a value before it, the outer one or that of the context. */
    private fun join(branches: List<Symbols>) {
        val added = branches.flatMapTo(LinkedHashSet()) { it.stores } - stores
        for (branch in branches) {
            references.putAll(branch.references)
            loads.putAll(branch.loads)
            stores.addAll(branch.stores)
        }
        for (name in added) {
            val outer = parent?.find(name)
            loads[reference(name)] = if (outer == null) Load.Resolve(name) else Load.Alias(outer)
        }
    }

    fun visitAll(nodes: List<Node>) = nodes.forEach { visit(it) }

    /** Declares a loop's targets, which are parameters of its frame. */
    fun declareTargets(node: Node) {
        if (node.kind == "Name") declareParameter(node.text("name")) else node.children.forEach { declareTargets(it) }
    }

    fun visit(node: Node) {
        when (node.kind) {
            "Name" ->
                when (node.text("ctx")) {
                    "param" -> declareParameter(node.text("name"))
                    "store" -> store(node.text("name"))
                    else -> load(node.text("name"))
                }
            "NSRef" -> load(node.text("name"))
            "If" -> visitIf(node)
            "Macro" -> store(node.text("name"))
            "Assign" -> {
                visit(node.node("value"))
                visit(node.node("target"))
            }
            "For" -> visit(node.node("iter"))
            "CallBlock" -> visit(node.node("call"))
            "FilterBlock" -> visit(node.node("filter"))
            "With" -> visitAll(node.list("values"))
            "AssignBlock" -> visit(node.node("target"))
            "Scope", "Generation" -> {}
            else -> visitAll(node.children)
        }
    }

    private fun visitIf(node: Node) {
        visit(node.node("test"))
        join(listOf("body", "elif_", "else_").map { field -> copy().also { it.visitAll(node.list(field)) } })
    }

    /** How many names are copied for branches, which grows with the square of a template's size. */
    private class Work(private var left: Int = MOST_WORK) {
        fun count(names: Int) {
            left -= names
            if (left < 0) refuse("the template has too many names and conditions")
        }
    }

    companion object {
        private const val MOST_WORK = 4_000_000

        /** Those of [names] that nodes load before they assign them. */
        fun undeclared(nodes: List<Node>, names: Set<String>): Set<String> {
            val open = HashSet(names)
            val found = HashSet<String>()
            fun visit(node: Node) {
                if (node.kind == "Name") {
                    val name = node.text("name")
                    if (node.text("ctx") == "load" && name in open) found.add(name) else open.remove(name)
                } else {
                    node.children.forEach { visit(it) }
                }
            }
            nodes.forEach { visit(it) }
            return found
        }
    }
}
