package dev.smolship.core.bundle

import dev.smolship.core.Refusal
import java.io.File
import java.io.IOException

private const val LONGEST_NAME = 255 // bytes of one name, on every file system in use

/**
 * [name], a path from an untrusted file, in the one form that is written: names joined by slashes. Refused are empty names,
 * `.` and `..`, and what no file system can hold. [what] it is of, for the refusal.
 */
fun relative(name: String, what: String): String {
    val parts = name.split('/')
    if (name.startsWith('/') || ".." in parts) {
        throw Refusal("a path leaves its folder", name, "$what inside the folder")
    }
    if (parts.any { it.isEmpty() || it == "." || it.toByteArray().size > LONGEST_NAME } || '\u0000' in name) {
        throw Refusal("$what cannot be used", name, "names of 1 to $LONGEST_NAME bytes of UTF-8, joined by slashes")
    }
    return name
}

/** [name], from an untrusted file, where it is the name of one file, without a separator of any system. */
fun plainName(name: String, what: String): String {
    if ('/' in name || '\\' in name || !name.codePoints().allMatch(::isPrintable)) {
        throw Refusal("$what cannot be used", name, "a plain name, such as onnx")
    }
    return relative(name, what)
}

private fun isPrintable(code: Int): Boolean = code == ' '.code ||
    when (Character.getType(code).toByte()) {
        Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
        Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR, Character.SPACE_SEPARATOR,
        -> false
        else -> true
    }

/** The file [name] below [root]; refused where a link on the way leads out of it. */
fun inside(root: File, name: String): File {
    val file = File(root, relative(name, "a file's name"))
    val real = try {
        file.canonicalFile.toPath()
    } catch (error: IOException) {
        throw Refusal("a file's name cannot be used", error, "a path inside $root")
    }
    if (!real.startsWith(root.canonicalFile.toPath())) {
        throw Refusal("a path leaves its folder through a link", "$name -> $real", "real files inside $root")
    }
    return file
}
