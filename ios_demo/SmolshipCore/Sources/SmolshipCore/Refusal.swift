import Foundation

/// What cannot be used or done: what is wrong, what was found, what was expected, what to do about it.
public struct Refusal: Error, Equatable, Sendable, CustomStringConvertible, LocalizedError {
    public let what: String
    public let got: String?
    public let expected: String?
    public let todo: String?

    public init(_ what: String, got: Any? = nil, expected: Any? = nil, todo: String? = nil) {
        self.what = what
        self.got = got.map { clip($0) }
        self.expected = expected.map { clip($0) }
        self.todo = todo
    }

    /// One line for each part, as the smolship command prints it.
    public var description: String {
        var lines = [what]
        if let got { lines.append("  got:      " + got) }
        if let expected { lines.append("  expected: " + expected) }
        if let todo { lines.append("  to do:    " + todo) }
        return lines.joined(separator: "\n")
    }

    public var errorDescription: String? { description }
}

/// A value as one printable line of at most `limit` characters: it may come from an untrusted file.
func clip(_ value: Any, limit: Int = 400) -> String {
    var out = String.UnicodeScalarView()
    var count = 0
    for scalar in String(describing: value).unicodeScalars {
        count += 1
        guard count <= limit else { return String(out) + "…" }
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator:
            out.append(" ")
        default: out.append(scalar)
        }
    }
    return String(out)
}
