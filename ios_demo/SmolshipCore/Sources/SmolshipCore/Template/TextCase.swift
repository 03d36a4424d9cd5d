/// Python's changes and tests of case, and its classes of code points.
extension Array where Element == Unicode.Scalar {
    func uppercased() -> Text { flatMap { Text(of: $0.properties.uppercaseMapping) } }

    func lowercased() -> Text {
        guard contains("Σ") else { return flatMap { Text(of: $0.properties.lowercaseMapping) } }
        return indices.flatMap { lowercased(at: $0) }
    }

    /// A capital sigma at a word's end has a form of its own.
    private func lowercased(at place: Int) -> Text {
        guard self[place] == "Σ" else { return Text(of: self[place].properties.lowercaseMapping) }
        let before = self[..<place].last { !$0.properties.isCaseIgnorable }
        let after = self[(place + 1)...].first { !$0.properties.isCaseIgnorable }
        let isFinal = before?.properties.isCased == true && after?.properties.isCased != true
        return isFinal ? ["ς"] : ["σ"]
    }

    func capitalized() -> Text {
        guard let first else { return [] }
        return Text(of: first.properties.titlecaseMapping) + dropFirst().indices.flatMap { lowercased(at: $0) }
    }

    /// str.title: a capital after everything that has no case.
    func titled() -> Text {
        var wasCased = false
        return indices.flatMap { place -> Text in
            let scalar = self[place]
            defer { wasCased = scalar.properties.isCased }
            return wasCased ? lowercased(at: place) : Text(of: scalar.properties.titlecaseMapping)
        }
    }

    func swappedCase() -> Text {
        indices.flatMap { place -> Text in
            let scalar = self[place]
            if scalar.properties.isUppercase { return lowercased(at: place) }
            return scalar.properties.isLowercase ? Text(of: scalar.properties.uppercaseMapping) : [scalar]
        }
    }

    func casefolded() throws -> Text {
        guard allSatisfy(\.isASCII) else { throw Fault.unsupported("casefold beyond ASCII") }
        return lowercased()
    }

    /// All that have case are small letters, and there is one.
    var isLower: Bool { isOfOneCase { $0.isLowercase } }
    var isUpper: Bool { isOfOneCase { $0.isUppercase } }

    private func isOfOneCase(_ isRight: (Unicode.Scalar.Properties) -> Bool) -> Bool {
        var found = false
        for scalar in self {
            let properties = scalar.properties
            if isRight(properties) {
                found = true
            } else if properties.isLowercase || properties.isUppercase || scalar.isTitle {
                return false
            }
        }
        return found
    }

    var isTitle: Bool {
        var (wasCased, found) = (false, false)
        for scalar in self {
            if scalar.properties.isUppercase || scalar.isTitle {
                if wasCased { return false }
                (wasCased, found) = (true, true)
            } else if scalar.properties.isLowercase {
                if !wasCased { return false }
                found = true
            } else {
                wasCased = false
            }
        }
        return found
    }
}

extension Unicode.Scalar {
    var isTitle: Bool { properties.generalCategory == .titlecaseLetter }

    var isAlphabetic: Bool {
        switch properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }

    var isDecimal: Bool { properties.numericType == .decimal }
    var isDigit: Bool { properties.numericType == .decimal || properties.numericType == .digit }
    var isNumeric: Bool { properties.numericType != nil }
    var isAlphanumeric: Bool { isAlphabetic || isNumeric }
    var isWord: Bool { isAlphanumeric || self == "_" }
}
