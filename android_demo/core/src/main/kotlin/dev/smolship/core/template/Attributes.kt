package dev.smolship.core.template

import java.math.BigInteger

internal const val SELF = "TemplateReference"

/** `value.name` of a template: the attribute, else the element. */
internal fun Machine.getAttribute(value: Any?, name: String): Any? {
    step()
    if (value is Undefined) return attributeOfUndefined(value, name)
    val found = attribute(value, name)
    if (found !== Absent) return found
    val entry = (value as? DictValue)?.find(name)
    return if (entry != null) entry.value else Undefined("'${typeName(value)} object' has no attribute '$name'")
}

/** `value[key]` of a template: the element, else the attribute. */
internal fun Machine.getItem(value: Any?, key: Any?): Any? {
    step()
    val found =
        when (value) {
            is Undefined -> refuse(value.message)
            is DictValue -> if (isHashable(key)) value.find(key)?.let { return it.value } ?: Absent else Absent
            is String, is Markup, is ListValue, is TupleValue, is RangeValue -> elementAt(value, key)
            is Opaque -> unsupported("an element of ${value.type}")
            else -> Absent
        }
    if (found !== Absent) return found
    val name = textOf(key)
    val attribute = if (name == null) Absent else attribute(value, name)
    return if (attribute === Absent) Undefined("'${typeName(value)} object' has no such element") else attribute
}

private fun isHashable(key: Any?): Boolean = when (key) {
    is ListValue, is DictValue -> false
    is DictView -> key.kind == DictView.Kind.VALUES
    is TupleValue -> key.items.all { isHashable(it) }
    else -> true
}

private fun Machine.elementAt(value: Any?, key: Any?): Any? {
    val index = wholeOf(key) ?: return Absent
    val length = lengthOf(value)!!
    val size = BigInteger.valueOf(length.toLong())
    val positive = if (index.signum() < 0) index + size else index
    if (positive.signum() < 0 || positive >= size) return Absent
    val i = positive.toInt()
    return when (value) {
        is ListValue -> value.items[i]
        is TupleValue -> value.items[i]
        is RangeValue -> value[i]
        else -> {
            val text = textOf(value)!!
            scan(text.length)
            like(value, cut(text, i, i + 1))
        }
    }
}

/** `value[start:stop:step]`. */
internal fun Machine.slice(value: Any?, start: Any?, stop: Any?, step: Any?): Any? {
    step()
    if (value is Undefined) refuse(value.message)
    val length =
        when (value) {
            is String, is Markup, is ListValue, is TupleValue, is RangeValue -> lengthOf(value)!!
            else -> refuse("a ${typeName(value)} cannot be sliced")
        }
    val by = if (step == null) BigInteger.ONE else wholeOf(step) ?: refuse("slice indices must be integers or None")
    if (by.signum() == 0) refuse("slice step cannot be zero")
    val stride = by.max(BigInteger.valueOf(-length - 1L)).min(BigInteger.valueOf(length + 1L)).toInt()
    val from: Int
    val to: Int
    if (stride > 0) {
        from = clampIndex(start, length, 0)
        to = clampIndex(stop, length, length)
    } else {
        from = clampDown(start, length, length - 1)
        to = clampDown(stop, length, -1)
    }
    if (value is RangeValue) return rangeSlice(value, from, to, by)
    val positions = if (stride > 0) from until to step stride else from downTo to + 1 step -stride
    val text = textOf(value)
    if (text != null) {
        room(text.length.toLong())
        return like(value, if (stride == 1) cut(text, from, to) else pick(text, positions))
    }
    val items = itemsOf(value)!!
    val picked = positions.map { items[it] }
    roomForItems(picked.size.toLong())
    return if (value is ListValue) ListValue(picked) else TupleValue(picked)
}

private fun clampDown(value: Any?, length: Int, default: Int): Int {
    if (value == null) return default
    val found = wholeOf(value) ?: refuse("slice indices must be integers or None")
    val positive = if (found.signum() < 0) found + BigInteger.valueOf(length.toLong()) else found
    return positive.max(BigInteger.ONE.negate()).min(BigInteger.valueOf(length - 1L)).toInt()
}

private fun rangeSlice(range: RangeValue, from: Int, to: Int, by: BigInteger): RangeValue {
    if (by.bitLength() >= Int.SIZE_BITS) unsupported("a slice by $by of a range")
    return RangeValue(range.start + from * range.step, range.start + to * range.step, range.step * by.toLong())
}

private fun attributeOfUndefined(value: Undefined, name: String): Any? =
    if (name == "__class__") Undefined("access to attribute '$name' is unsafe") else refuse(value.message)

/** What jinja's sandbox does not give: it exists, and is undefined to a template. */
private fun unsafe(value: Any?, name: String): Undefined =
    Undefined("access to attribute '$name' of '${typeName(value)}' object is unsafe")

private val DUNDERS =
    """
    class contains delattr delitem dir doc eq format ge getattribute getitem getstate gt hash init init_subclass ior
    iter le len lt ne new or reduce reduce_ex repr reversed ror setattr setitem sizeof str subclasshook class_getitem
    """.trim().split(Regex("\\s+")).map {
        "__${it}__"
    }.toSet()

/** Python's attribute of a value, as the sandbox lets it through; [Absent] where there is none. */
internal fun Machine.attribute(value: Any?, name: String): Any? {
    if (name.startsWith("_")) {
        return if (value !is DictValue || name in DUNDERS) unsafe(value, name) else Absent
    }
    return when (value) {
        is String, is Markup -> method(value, name, STRING_METHODS)
        is ListValue -> method(value, name, LIST_METHODS)
        is TupleValue -> {
            val i = value.names.indexOf(name)
            if (i >= 0) value.items[i] else method(value, name, TUPLE_METHODS)
        }
        is DictValue -> method(value, name, DICT_METHODS)
        is NamespaceValue -> value.attributes.find(name).let { if (it == null) Absent else it.value }
        is RangeValue -> rangeAttribute(value, name)
        is BigInteger, is Boolean, is Double -> numberAttribute(value, name)
        is LoopValue -> value.attribute(name)
        is HelperValue -> value.attribute(name)
        is DictView -> if (name == "isdisjoint" || name == "mapping") unsupported("$name of a view") else Absent
        is Generator -> if (name in GENERATOR_NAMES) unsupported("$name of a generator") else Absent
        is Opaque -> unsupported("an attribute of ${value.type}")
        else -> Absent
    }
}

private val GENERATOR_NAMES =
    setOf("send", "throw", "close", "gi_code", "gi_frame", "gi_running", "gi_suspended", "gi_yieldfrom")

/** Methods that the sandbox keeps from templates, since they change their object. */
private val MUTATING =
    setOf("append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update")

private fun method(value: Any?, name: String, methods: Map<String, Method>): Any? {
    val method = methods[name] ?: return Absent
    if (name in MUTATING && (value is ListValue || value is DictValue)) return unsafe(value, name)
    return BoundMethod(value, name, method)
}

private fun Machine.rangeAttribute(value: RangeValue, name: String): Any? = when (name) {
    "start" -> BigInteger.valueOf(value.start)
    "stop" -> BigInteger.valueOf(value.stop)
    "step" -> BigInteger.valueOf(value.step)
    else -> method(value, name, TUPLE_METHODS)
}

private fun numberAttribute(value: Any?, name: String): Any? {
    val whole = wholeOf(value)
    return when (name) {
        "real" -> whole ?: value
        "imag" -> if (whole != null) BigInteger.ZERO else 0.0
        "numerator" -> whole ?: Absent
        "denominator" -> if (whole != null) BigInteger.ONE else Absent
        "conjugate" -> native(name, "") { whole ?: value }
        "bit_length" -> if (whole == null) Absent else native(name, "") { whole(whole.abs().bitLength()) }
        "bit_count" -> if (whole == null) Absent else native(name, "") { whole(whole.abs().bitCount()) }
        "is_integer" ->
            if (whole != null) {
                Absent
            } else {
                native(name, "") { (value as Double).isFinite() && value == Math.rint(value) }
            }
        "as_integer_ratio" -> unsupported(name)
        "to_bytes", "from_bytes" -> if (whole != null) unsupported(name) else Absent
        "hex", "fromhex" -> if (whole == null) unsupported(name) else Absent
        else -> Absent
    }
}
