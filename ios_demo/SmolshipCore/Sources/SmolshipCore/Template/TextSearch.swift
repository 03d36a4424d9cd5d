/// Python's searching and splitting of strings, on code points.
extension Array where Element == Unicode.Scalar {
    /// The first place of `part` between `start` and `end`.
    func find(_ part: Text, _ start: Int, _ end: Int) -> Int? {
        guard start <= end, part.count <= end - start else { return nil }
        guard let first = part.first else { return start }
        return withUnsafeBufferPointer { text in
            part.withUnsafeBufferPointer { part in
                var place = start
                while place <= end - part.count {
                    if text[place] == first, matches(text, place, part) { return place }
                    place += 1
                }
                return nil
            }
        }
    }

    func findLast(_ part: Text, _ start: Int, _ end: Int) -> Int? {
        guard start <= end, part.count <= end - start else { return nil }
        return withUnsafeBufferPointer { text in
            part.withUnsafeBufferPointer { part in
                var place = end - part.count
                while place >= start {
                    if matches(text, place, part) { return place }
                    place -= 1
                }
                return nil
            }
        }
    }

    private func matches(
        _ text: UnsafeBufferPointer<Unicode.Scalar>, _ place: Int, _ part: UnsafeBufferPointer<Unicode.Scalar>
    ) -> Bool {
        for offset in 0..<part.count where text[place + offset] != part[offset] { return false }
        return true
    }

    /// The places of `part` that do not overlap; of an empty one, every gap between code points.
    func places(of part: Text, _ start: Int, _ end: Int, limit: Int = .max) -> [Int] {
        guard start <= end else { return [] }
        if part.isEmpty { return (start...end).prefix(limit).map { $0 } }
        var (places, from): ([Int], Int) = ([], start)
        while places.count < limit, let place = find(part, from, end) {
            places.append(place)
            from = place + part.count
        }
        return places
    }

    func split(on separator: Text, limit: Int) -> [Text] {
        var (parts, from): ([Text], Int) = ([], 0)
        for place in places(of: separator, 0, count, limit: limit) {
            parts.append(Text(self[from..<place]))
            from = place + separator.count
        }
        return parts + [Text(self[from...])]
    }

    func splitFromRight(on separator: Text, limit: Int) -> [Text] {
        var (parts, to): ([Text], Int) = ([], count)
        while parts.count < limit, let place = findLast(separator, 0, to) {
            parts.append(Text(self[(place + separator.count)..<to]))
            to = place
        }
        return (parts + [Text(self[..<to])]).reversed()
    }

    /// Words between white space; after `limit` of them the rest as it is.
    func splitOnSpace(limit: Int = .max) -> [Text] {
        var (parts, place): ([Text], Int) = ([], 0)
        while true {
            while place < count, self[place].isSpace { place += 1 }
            guard place < count else { return parts }
            guard parts.count < limit else { return parts + [Text(self[place...])] }
            let start = place
            while place < count, !self[place].isSpace { place += 1 }
            parts.append(Text(self[start..<place]))
        }
    }

    func splitOnSpaceFromRight(limit: Int) -> [Text] {
        let parts = Text(reversed()).splitOnSpace(limit: limit)
        return parts.reversed().map { Text($0.reversed()) }
    }

    func lines(keepingEnds: Bool = false) -> [Text] {
        var (lines, place): ([Text], Int) = ([], 0)
        while place < count {
            let start = place
            while place < count, !self[place].isLineBreak { place += 1 }
            var end = place
            if place < count {
                place += self[place] == "\r" && place + 1 < count && self[place + 1] == "\n" ? 2 : 1
                if keepingEnds { end = place }
            }
            lines.append(Text(self[start..<end]))
        }
        return lines
    }

    /// Without the code points of `set`, or white space where it is nil, at its ends.
    func stripped(_ set: Text?, left: Bool, right: Bool) -> Text {
        func isDropped(_ scalar: Unicode.Scalar) -> Bool { set?.contains(scalar) ?? scalar.isSpace }
        var (start, end) = (0, count)
        if left { while start < end, isDropped(self[start]) { start += 1 } }
        if right { while end > start, isDropped(self[end - 1]) { end -= 1 } }
        return Text(self[start..<end])
    }

    /// `room`: is asked for the size before it is made.
    func replacing(_ old: Text, with new: Text, limit: Int, room: (Int) throws -> Void) rethrows -> Text {
        let places = places(of: old, 0, count, limit: limit)
        guard !places.isEmpty else { return self }
        try room(count + places.count * (new.count - old.count))
        var (result, from): (Text, Int) = ([], 0)
        for place in places {
            result += self[from..<place]
            result += new
            from = place + old.count
        }
        return result + self[from...]
    }

    func joining(_ parts: [Text], room: (Int) throws -> Void) rethrows -> Text {
        try room(parts.reduce(0) { $0 + $1.count } + count * Swift.max(parts.count - 1, 0))
        var result: Text = []
        for (place, part) in parts.enumerated() {
            if place > 0 { result += self }
            result += part
        }
        return result
    }

    static func * (text: Text, count: Int) -> Text { Text((0..<Swift.max(count, 0)).flatMap { _ in text }) }
}
