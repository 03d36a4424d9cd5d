package dev.smolship.core.template

import java.math.BigDecimal
import java.math.BigInteger

internal fun isNumber(value: Any?): Boolean = value is BigInteger || value is Boolean || value is Double

/** Exact comparison of two numbers; null if one is NaN. */
private fun compareNumbers(left: Any?, right: Any?): Int? {
    val a = wholeOf(left)
    val b = wholeOf(right)
    if (a != null && b != null) return a.compareTo(b)
    val x = left as? Double
    val y = right as? Double
    if (x != null && y != null) {
        return if (x.isNaN() || y.isNaN()) {
            null
        } else if (x == y) {
            0
        } else {
            x.compareTo(y)
        }
    }
    val real = x ?: y!!
    if (real.isNaN()) return null
    val order =
        if (real.isInfinite()) {
            if (real > 0) 1 else -1
        } else {
            BigDecimal(real).compareTo(BigDecimal(a ?: b!!))
        }
    return if (x != null) order else -order
}

/** Python's ==. */
internal fun Machine.equal(left: Any?, right: Any?): Boolean {
    step()
    if (isNumber(left) && isNumber(right)) return compareNumbers(left, right) == 0
    val text = textOf(left)
    if (text != null) {
        val other = textOf(right) ?: return false
        scan(minOf(text.length, other.length))
        return text == other
    }
    return when (left) {
        is ListValue -> right is ListValue && sameItems(left.items, right.items)
        is TupleValue -> right is TupleValue && sameItems(left.items, right.items)
        is DictValue -> right is DictValue && sameEntries(left, right)
        is RangeValue -> right is RangeValue && hashKey(left) == hashKey(right)
        is Undefined -> right is Undefined
        is DictView -> left === right || (right is DictView && sameKeys(left, right))
        is BoundMethod -> right is BoundMethod && left.receiver === right.receiver && left.name == right.name
        else -> left === right
    }
}

/** Python's identity or equality, by which containers look for elements. */
internal fun Machine.same(left: Any?, right: Any?): Boolean {
    step()
    return left === right || equal(left, right)
}

private fun Machine.sameItems(left: List<Any?>, right: List<Any?>): Boolean =
    left.size == right.size && inside { left.indices.all { same(left[it], right[it]) } }

private fun Machine.sameEntries(left: DictValue, right: DictValue): Boolean = left.size == right.size &&
    inside { left.entries.all { entry -> right.find(entry.key)?.let { same(entry.value, it.value) } ?: false } }

private fun Machine.sameKeys(left: DictView, right: DictView): Boolean {
    if (left.kind == DictView.Kind.VALUES || right.kind == DictView.Kind.VALUES) return false
    if (left.dict.size != right.dict.size) return false
    if (left.kind == right.kind && left.kind == DictView.Kind.KEYS) {
        return left.dict.entries.all { right.dict.find(it.key) != null }
    }
    return left.dict.entries.all { contains(left.element(it), right) }
}

/** Python's <, <=, > and >=; values without an order are refused. */
internal fun Machine.ordered(left: Any?, op: String, right: Any?): Boolean {
    step()
    if (isNumber(left) && isNumber(right)) return compareNumbers(left, right)?.let { holds(it, op) } ?: false
    val text = textOf(left)
    val other = textOf(right)
    if (text != null && other != null) {
        scan(minOf(text.length, other.length))
        return holds(compareText(text, other), op)
    }
    val items = itemsOf(left)
    val others = itemsOf(right)
    if (items != null && others != null && (left is ListValue) == (right is ListValue)) {
        return inside {
            val i = (0 until minOf(items.size, others.size)).firstOrNull { !same(items[it], others[it]) }
            if (i == null) holds(items.size.compareTo(others.size), op) else ordered(items[i], op, others[i])
        }
    }
    if (left is Undefined) refuse(left.message)
    if (right is Undefined) refuse(right.message)
    if (left is DictView && right is DictView) unsupported("the order of dictionary views")
    refuse("'$op' not supported between instances of '${typeName(left)}' and '${typeName(right)}'")
}

private fun holds(order: Int, op: String): Boolean = when (op) {
    "<" -> order < 0
    "<=" -> order <= 0
    ">" -> order > 0
    else -> order >= 0
}

/** Python's sorted: stable, in reverse too. */
internal fun <T> Machine.sorted(items: List<T>, reverse: Boolean, key: (T) -> Any?): List<T> {
    val keyed = items.map { key(it) to it }
    val order =
        Comparator<Pair<Any?, T>> { a, b ->
            if (ordered(a.first, "<", b.first)) {
                -1
            } else if (ordered(b.first, "<", a.first)) {
                1
            } else {
                0
            }
        }
    try {
        return keyed.sortedWith(if (reverse) Comparator { a, b -> order.compare(b, a) } else order).map { it.second }
    } catch (_: IllegalArgumentException) {
        unsupported("sorting values without a consistent order")
    }
}

/** Python's in. */
internal fun Machine.contains(item: Any?, container: Any?): Boolean {
    val text = textOf(container)
    if (text != null) {
        val part = textOf(item) ?: refuse("'in <string>' requires string as left operand, not ${typeName(item)}")
        search(text, listOf(part))
        return part in text
    }
    return when (container) {
        is DictValue -> container.find(item) != null
        is DictView ->
            when (container.kind) {
                DictView.Kind.KEYS -> container.dict.find(item) != null
                DictView.Kind.VALUES -> container.dict.entries.any { same(it.value, item) }
                DictView.Kind.ITEMS -> {
                    val pair = (item as? TupleValue)?.items?.takeIf { it.size == 2 }
                    pair != null && container.dict.find(pair[0])?.let { same(it.value, pair[1]) } == true
                }
            }
        is RangeValue -> inRange(item, container)
        else -> {
            val items = iterate(container) ?: refuse("argument of type '${typeName(container)}' is not iterable")
            var found = false
            while (!found && items.hasNext()) found = same(items.next(), item)
            found
        }
    }
}

private fun inRange(item: Any?, range: RangeValue): Boolean {
    val whole = hashKey(item.takeIf { isNumber(it) }) as? BigInteger ?: return false
    if (whole.bitLength() >= Long.SIZE_BITS) return false
    val distance = whole.toLong() - range.start
    return distance % range.step == 0L && distance / range.step in 0 until range.length
}
