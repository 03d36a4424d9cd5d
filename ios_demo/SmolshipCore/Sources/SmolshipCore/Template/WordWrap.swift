/// Python's textwrap of one line: words, and parts of words with hyphens, into lines of a width.
struct WordWrap {
    let width: Int
    let breaksWords: Bool
    let breaksHyphens: Bool

    func lines(_ text: Text) throws -> [Text] {
        guard width > 0 else { throw Fault.failed("ValueError: invalid width \(width) (must be > 0)") }
        var chunks: [Text] = chunks(text).reversed()
        var lines: [Text] = []
        while !chunks.isEmpty {
            if !lines.isEmpty, isSpace(chunks.last!) { chunks.removeLast() }
            var (line, size): ([Text], Int) = ([], 0)
            while let chunk = chunks.last, size + chunk.count <= width {
                line.append(chunks.removeLast())
                size += chunk.count
            }
            if let chunk = chunks.last, chunk.count > width { takeLongWord(chunk, &chunks, &line, width - size) }
            if let last = line.last, isSpace(last) { line.removeLast() }
            if !line.isEmpty { lines.append(Text(line.joined())) }
        }
        return lines
    }

    private func takeLongWord(_ chunk: Text, _ chunks: inout [Text], _ line: inout [Text], _ room: Int) {
        if breaksWords {
            var end = room
            if breaksHyphens, let hyphen = chunk.findLast(["-"], 0, room), hyphen > 0,
                chunk[..<hyphen].contains(where: { $0 != "-" })
            {
                end = hyphen + 1
            }
            line.append(Text(chunk[..<end]))
            chunks[chunks.count - 1] = Text(chunk[end...])
        } else if line.isEmpty {
            line.append(chunks.removeLast())
        }
    }

    private func isSpace(_ text: Text) -> Bool { text.allSatisfy(\.isSpace) }

    private static func isBlank(_ scalar: Unicode.Scalar) -> Bool {
        "\t\n\u{b}\u{c}\r ".unicodeScalars.contains(scalar)
    }

    private func chunks(_ text: Text) -> [Text] {
        var (chunks, at): ([Text], Int) = ([], 0)
        while at < text.count {
            let end = self.end(text, at)
            chunks.append(Text(text[at..<end]))
            at = end
        }
        return chunks
    }

    /// Where the chunk that begins at `start` ends.
    private func end(_ text: Text, _ start: Int) -> Int {
        var end = start
        if WordWrap.isBlank(text[start]) {
            while end < text.count, WordWrap.isBlank(text[end]) { end += 1 }
            return end
        }
        if breaksHyphens, let dashes = dashes(text, start) { return dashes }
        end = start + 1
        while end < text.count, !WordWrap.isBlank(text[end]) {
            if breaksHyphens {
                if isHyphenated(text, end) { return end + 1 }
                if dashes(text, end) != nil { return end }
            }
            end += 1
        }
        return end
    }

    private func isPunctuated(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isWord || "!\"'&.,?".unicodeScalars.contains(scalar)
    }

    private func isLetter(_ text: Text, _ place: Int) -> Bool {
        text.indices.contains(place) && text[place].isWord && !text[place].isDecimal
    }

    /// The end of a dash of two or more hyphens between words.
    private func dashes(_ text: Text, _ start: Int) -> Int? {
        guard start > 0, isPunctuated(text[start - 1]) else { return nil }
        var end = start
        while end < text.count, text[end] == "-" { end += 1 }
        return end - start >= 2 && end < text.count && text[end].isWord ? end : nil
    }

    /// Is this the hyphen of a word of letters?
    private func isHyphenated(_ text: Text, _ place: Int) -> Bool {
        guard text[place] == "-" else { return false }
        let afterWord = isLetter(text, place - 1) && isLetter(text, place - 2)
        let afterPart =
            place >= 3 && isPunctuated(text[place - 1]) && text[place - 2] == "-" && isLetter(text, place - 3)
        guard afterWord || afterPart, isLetter(text, place + 1) else { return false }
        let next = place + 2
        return isLetter(text, next) || next < text.count && text[next] == "-" && isLetter(text, next + 1)
    }
}
