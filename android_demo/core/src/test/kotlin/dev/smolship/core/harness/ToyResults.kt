package dev.smolship.core.harness

import dev.smolship.core.flag
import dev.smolship.core.json.Json
import java.io.File

/**
 * Executes the plans of a file of vectors, those that the toy can, and writes a result for each by its number, for
 * Python to read: PLAN.json FOLDER. FOLDER holds the artifact that the plans name.
 */
fun main(arguments: Array<String>) {
    val (cases, folder) = arguments.map(::File)
    Json.read(cases.readBytes()).items("cases").map { it.objectOf("case") }.forEachIndexed { i, case ->
        if (case.flag("accepted") && !case.flag("error")) {
            val plan = Plan.read(case.need("plan").text("plan").toByteArray())
            val result = executed(plan, case.need("engine").objectOf("engine"), artifactDigest(folder, plan.info))
            result.save(File(folder, "$i.json"))
        }
    }
}
