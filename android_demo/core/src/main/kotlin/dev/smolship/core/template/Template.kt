package dev.smolship.core.template

import dev.smolship.core.json.Json
import dev.smolship.core.json.JsonError
import java.time.LocalDate
import java.time.LocalDateTime
import java.time.format.DateTimeParseException

private const val STACK_BYTES = 64L shl 20
private const val SCHEMA = 1L

/**
 * A chat template: the syntax tree of template.json, which the export wrote. It renders what jinja2 in Python renders,
 * character for character, or is refused by a [TemplateError].
 */
class Template(program: Json, private val limits: Limits = Limits()) {
    private val frame = Frame(Symbols(null), inLoop = false)
    private val body: Statement

    /** SHA-256 of the chat_template.jinja that the program was made from. */
    val sourceSha256: String

    init {
        try {
            val found = program.objectOf("template.json")
            val schema = found.need("schema").whole("schema")
            if (schema != SCHEMA) {
                throw JsonError("schema: got $schema, expected $SCHEMA: a newer app reads it, or export again")
            }
            val unknown = found.fields.keys - setOf("schema", "source_sha256", "body")
            if (unknown.isNotEmpty()) throw JsonError("unknown fields $unknown")
            sourceSha256 = found.need("source_sha256").text("source_sha256")
            body = withStack { compile(Node.readAll(found.need("body"))) }
        } catch (error: JsonError) {
            refuse("template.json cannot be read: ${error.message}")
        }
    }

    private fun compile(nodes: List<Node>): Statement {
        if ("self" in Symbols.undeclared(nodes, setOf("self"))) frame.symbols.declareParameter("self")
        frame.symbols.visitAll(nodes)
        return Statements.body(nodes, frame)
    }

    /**
     * The text for these variables. [date] is what strftime_now takes for now, in ISO 8601 as `2025-03-07` or
     * `2025-03-07T12:00:00`; without one it is this device's time.
     */
    fun render(variables: Map<String, Json>, date: String? = null): String = withStack {
        val machine = Machine(limits, if (date == null) LocalDateTime.now() else parse(date))
        val context = globals() + variables.mapValues { valueOf(it.value) }
        val run = Run(machine, context, Variables(null), Output(machine, limits.output))
        run.variables["self:0"] = Opaque(SELF)
        frame.enter(run)
        body(run)
        run.out.toString()
    }

    private fun parse(date: String): LocalDateTime = try {
        if ('T' in date) LocalDateTime.parse(date) else LocalDate.parse(date).atStartOfDay()
    } catch (_: DateTimeParseException) {
        refuse("the date is '$date', expected ISO 8601 as 2025-03-07")
    }

    private companion object {
        /** Runs on a thread with room for nested templates, and refuses what needs more. */
        fun <T> withStack(body: () -> T): T {
            var result: Result<T>? = null
            val thread = Thread(null, { result = runCatching(body) }, "template", STACK_BYTES)
            thread.isDaemon = true
            thread.start()
            thread.join()
            return result!!.getOrElse { error ->
                when (error) {
                    is StackOverflowError -> refuse("the template is nested too deep")
                    is OutOfMemoryError -> refuse("the template needs more memory than this app has")
                    is TemplateError, is JsonError -> throw error
                    else -> throw TemplateError("this app's renderer has a fault, please report it: $error", error)
                }
            }
        }
    }
}
