private let longest = 255  // bytes of one name, on every file system in use

/// A path from an untrusted file in the one form that bundles have: names joined by slashes. Refused are empty names,
/// `.` and `..`, and what no file system can hold.
func relative(_ name: String, _ what: String) throws -> String {
    let parts = name.unicodeScalars.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    if name.unicodeScalars.first == "/" || parts.contains("..") {
        throw Refusal("a path leaves its folder", got: name, expected: "\(what) inside the folder")
    }
    let wrong = parts.contains { $0.isEmpty || $0 == "." || $0.utf8.count > longest || $0.utf8.contains(0) }
    if wrong {
        throw Refusal(
            "\(what) cannot be used", got: name, expected: "names of 1 to \(longest) bytes of UTF-8, joined by slashes")
    }
    return name
}

/// A name from an untrusted file that is to be one folder's or file's: no separator of any system in it, and nothing
/// that does not print.
func plainName(_ name: String, _ what: String) throws -> String {
    if name.unicodeScalars.contains(where: { $0 == "/" || $0 == "\\" || !isPrintable($0) }) {
        throw Refusal("\(what) cannot be used", got: name, expected: "a plain name, such as coreml")
    }
    return try relative(name, what)
}

/// As Python's str.isprintable has it.
func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
    case .spaceSeparator: scalar == " "
    default: true
    }
}
