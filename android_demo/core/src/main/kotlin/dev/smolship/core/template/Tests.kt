package dev.smolship.core.template

import java.math.BigInteger

/** All tests by name, what stands after `is`. */
internal val TESTS: Map<String, Function> by lazy {
    filters(
        remainder("odd") { 1 },
        remainder("even") { 0 },
        native("divisibleby", "value num") { a ->
            a.machine.equal(a.machine.binary("%", a.value(0), a.value(1)), BigInteger.ZERO)
        },
        test("defined") { it !is Undefined },
        test("undefined") { it is Undefined },
        test("none") { it == null },
        test("boolean") { it is Boolean },
        test("true") { it == true },
        test("false") { it == false },
        test("integer") { it is BigInteger },
        test("float") { it is Double },
        test("number") { isNumber(it) },
        test("string") { textOf(it) != null },
        test("mapping") { it is DictValue },
        test("sequence") {
            it is String || it is Markup || itemsOf(it) != null || it is DictValue || it is RangeValue ||
                it is Undefined
        },
        test("iterable") { it is LoopValue || iterate(it) != null },
        test("callable") { it is Function || it is LoopValue || it is Undefined },
        test("escaped") { it is Markup },
        native("lower", "value") { a -> isLower(a.machine.str(a.value(0))) },
        native("upper", "value") { a -> isUpper(a.machine.str(a.value(0))) },
        native("filter", "value") { a -> hashKey(a.value(0)) in FILTERS },
        native("test", "value") { a -> hashKey(a.value(0)) in TEST_NAMES },
        native("sameas", "value other") { a -> identical(a.value(0), a.value(1)) },
        native("in", "value seq") { a -> a.machine.contains(a.value(0), a.value(1)) },
    ) + COMPARISONS.flatMap { (op, names) -> names.map { name -> name to comparison(name, op) } }
}

private val TEST_NAMES: Set<Any?> by lazy { TESTS.keys }

private val COMPARISONS =
    mapOf(
        "==" to listOf("==", "eq", "equalto"),
        "!=" to listOf("!=", "ne"),
        ">" to listOf(">", "gt", "greaterthan"),
        ">=" to listOf(">=", "ge"),
        "<" to listOf("<", "lt", "lessthan"),
        "<=" to listOf("<=", "le"),
    )

internal fun Machine.test(name: String, value: Any?, arguments: Arguments): Any? {
    scan(textOf(value)?.length ?: 0)
    val test = TESTS[name] ?: refuse("No test named '$name'.")
    return test.call(this, Arguments(listOf(value) + arguments.positional, arguments.named))
}

private fun test(name: String, body: (Any?) -> Boolean): Function = native(name, "value") { body(it.value(0)) }

private fun remainder(name: String, wanted: () -> Int): Function =
    native(name, "value") { a -> a.machine.equal(a.machine.binary("%", a.value(0), whole(2)), whole(wanted())) }

private fun comparison(name: String, op: String): Function =
    native(name, "a b /") { a -> a.machine.compare(a.value(0), op, a.value(1)) }

/** Python's comparison operators but for `in`. */
internal fun Machine.compare(left: Any?, op: String, right: Any?): Boolean = when (op) {
    "==" -> equal(left, right)
    "!=" -> !equal(left, right)
    else -> ordered(left, op, right)
}

private val SMALL = BigInteger.valueOf(-5)..BigInteger.valueOf(256)

/** Python's is. Whether equal numbers and strings are one object is an accident of Python, and refused. */
private fun identical(left: Any?, right: Any?): Boolean {
    if (left === right) return true
    if (left is Boolean || right is Boolean || left == null || right == null) return left == right
    if (left is BigInteger && right is BigInteger && left in SMALL) return left == right
    val sameKind = left.javaClass == right.javaClass
    val isPlain = left is String || left is BigInteger || left is Double
    if (sameKind && isPlain && left == right) unsupported("sameas of equal values")
    return false
}
