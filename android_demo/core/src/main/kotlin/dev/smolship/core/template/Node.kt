package dev.smolship.core.template

import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError

/** The fields of each node of jinja's syntax tree, in jinja's order; its field `node` is called `value`. */
private val FIELDS: Map<String, List<String>> =
    """
    Output nodes
    TemplateData data
    For target iter body else_ test recursive
    If test body elif_ else_
    Macro name args defaults body
    CallBlock call args defaults body
    FilterBlock body filter
    With targets values body
    Scope body
    Assign target value
    AssignBlock target filter body
    ExprStmt value
    Break
    Continue
    Generation body
    Name name ctx
    NSRef name attr
    Const value
    Tuple items ctx
    List items
    Dict items
    Pair key value
    CondExpr test expr1 expr2
    Filter value name args kwargs dyn_args dyn_kwargs
    Test value name args kwargs dyn_args dyn_kwargs
    Keyword key value
    Call value args kwargs dyn_args dyn_kwargs
    Getitem value arg ctx
    Getattr value attr ctx
    Slice start stop step
    Concat nodes
    Compare expr ops
    Operand op expr
    Add left right
    Sub left right
    Mul left right
    Div left right
    FloorDiv left right
    Mod left right
    Pow left right
    And left right
    Or left right
    Not value
    Neg value
    Pos value
    """.trimIndent().lines().associate { line ->
        line.split(' ').let {
            it[0] to it.drop(1)
        }
    }

/** A node of a template's syntax tree. */
internal class Node private constructor(
    val kind: String,
    val line: Long,
    private val fields: Map<String, Json>,
    private val nodes: Map<String, List<Node>>,
) {
    /** The nodes in all fields, in jinja's order. */
    val children: List<Node> = FIELDS.getValue(kind).flatMap { nodes[it] ?: emptyList() }

    fun list(field: String): List<Node> = nodes[field] ?: wrong(field, "an array of nodes")

    fun nodeOrNull(field: String): Node? =
        if (fields[field] == Json.Null) null else nodes[field]?.singleOrNull() ?: wrong(field, "a node")

    fun node(field: String): Node = nodeOrNull(field) ?: wrong(field, "a node")

    fun text(field: String): String = (fields[field] as? Json.Text)?.value ?: wrong(field, "a string")

    fun flag(field: String): Boolean = (fields[field] as? Json.Bool)?.value ?: wrong(field, "true or false")

    /** The value of a Const. */
    fun constant(): Any? = when (val value = fields["value"]) {
        is Json.Null, is Json.Bool, is Json.Whole, is Json.Real, is Json.Text -> valueOf(value)
        else -> wrong("value", "null, a boolean, a number or a string")
    }

    fun wrong(field: String, expected: String): Nothing =
        refuse("template.json: $kind of line $line: field '$field': expected $expected; export the model again")

    companion object {
        fun read(json: Json): Node {
            val given = json.objectOf("a node")
            val kind = given.need("node").text("node")
            val names = FIELDS[kind] ?: throw JsonError("node '$kind': it is none of jinja's nodes that apps know")
            val expected = names.toSet() + setOf("node", "line")
            if (given.fields.keys != expected) {
                throw JsonError("$kind: got the fields ${given.fields.keys}, expected $expected")
            }
            val nodes = LinkedHashMap<String, List<Node>>()
            for (name in names) {
                when (val value = given.need(name)) {
                    is Json.Object -> nodes[name] = listOf(read(value))
                    is Json.Array -> nodes[name] = value.items.map { read(it) }
                    else -> {}
                }
            }
            return Node(kind, given.need("line").whole("line"), given.fields, nodes)
        }

        fun readAll(json: Json): List<Node> = json.items("body").map { read(it) }
    }
}

/** A template's value of JSON. */
internal fun valueOf(json: Json): Any? = when (json) {
    Json.Null -> null
    is Json.Bool -> json.value
    is Json.Whole -> json.value
    is Json.Real -> json.value
    is Json.Text -> json.value
    is Json.Array -> ListValue(json.items.map { valueOf(it) })
    is Json.Object -> DictValue().also { dict -> for ((name, value) in json.fields) dict[name] = valueOf(value) }
}
