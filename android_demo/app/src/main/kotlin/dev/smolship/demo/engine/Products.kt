package dev.smolship.demo.engine

/**
 * How ONNX Runtime multiplies with int4 weights on an Arm processor of this [cpuinfo] (`/proc/cpuinfo`), in the words of
 * a bundle's probes; [kleidiai] is whether Arm's kernels of that name may be used. As runtime/engines/onnx.py has it,
 * where it was measured; cores that differ are as the least able of them.
 */
fun products(cpuinfo: String, kleidiai: Boolean): String {
    val features = cpuinfo.lines().filter { it.startsWith("Features") }.map { it.substringAfter(':').trim().split(' ') }
    val dot = features.isNotEmpty() && features.all { "asimddp" in it }
    return when {
        !dot -> "activations in float32"
        kleidiai -> "activations in int8, by rows (KleidiAI)"
        else -> "activations in int8, by blocks of 32"
    }
}
