package dev.smolship.core.bundle

import dev.smolship.core.Refusal
import java.io.File
import java.io.IOException
import java.text.Normalizer
import java.util.Locale

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

/**
 * Refuses [names] of files that one file system cannot hold beside each other: one that is another's folder, and those
 * that differ in case or in the spelling of accents alone, which are one file on some.
 */
internal fun onePlaceEach(names: Set<String>) {
    val files = HashMap<String, String>()
    for (name in names) {
        val place = Normalizer.normalize(name, Normalizer.Form.NFD).lowercase(Locale.ROOT)
        files.put(place, name)?.let { throw twice(it, name) }
    }
    for ((place, name) in files) {
        for (i in place.indices) if (place[i] == '/') files[place.substring(0, i)]?.let { throw twice(it, name) }
    }
}

private fun twice(one: String, other: String) =
    Refusal("two files of a bundle need one place", "$one and $other", "names that differ", "export the bundle again")

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
