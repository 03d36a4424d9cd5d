/// Decodes UTF-8 that comes in pieces: a character is said when its last byte has come. What is no UTF-8 becomes
/// U+FFFD, one for each longest start of a character (the Unicode standard's practice, and Python's).
public struct TextStream {
    private var held: [UInt8] = []  // the first bytes of a character

    public init() {}

    /// The text that these bytes complete.
    public mutating func push(_ bytes: some Sequence<UInt8>) -> String {
        var out = String.UnicodeScalarView()
        for byte in bytes { take(byte, into: &out) }
        return String(out)
    }

    /// The text of what was held back.
    public mutating func finish() -> String {
        var out = String.UnicodeScalarView()
        giveUp(into: &out)
        return String(out)
    }

    private mutating func take(_ byte: UInt8, into out: inout String.UnicodeScalarView) {
        if let first = held.first {
            if !isHalfOfPair, TextStream.seconds(of: first, at: held.count).contains(byte) {
                held.append(byte)
                if held.count == TextStream.length(of: first) {
                    out.append(TextStream.scalar(held))
                    held = []
                }
                return
            }
            giveUp(into: &out)
        }
        switch TextStream.length(of: byte) {
        case 1: out.append(Unicode.Scalar(byte))
        case 0: out.append("\u{FFFD}")
        default: held = [byte]
        }
    }

    /// Whether what is held are two bytes of a surrogate. They can become no character, but Python says so when the third
    /// byte has come, and then of each.
    private var isHalfOfPair: Bool { held.count == 2 && held[0] == 0xED && held[1] >= 0xA0 }

    private mutating func giveUp(into out: inout String.UnicodeScalarView) {
        if isHalfOfPair { out.append("\u{FFFD}") }
        if !held.isEmpty { out.append("\u{FFFD}") }
        held = []
    }

    /// Bytes of a character that begins with this byte; 0 where none does.
    private static func length(of first: UInt8) -> Int {
        switch first {
        case 0x00...0x7F: 1
        case 0xC2...0xDF: 2
        case 0xE0...0xEF: 3
        case 0xF0...0xF4: 4
        default: 0
        }
    }

    /// What may come at a place behind a first byte: overlong forms and what is beyond U+10FFFF may not.
    private static func seconds(of first: UInt8, at place: Int) -> ClosedRange<UInt8> {
        switch (first, place) {
        case (0xE0, 1): 0xA0...0xBF
        case (0xF0, 1): 0x90...0xBF
        case (0xF4, 1): 0x80...0x8F
        default: 0x80...0xBF
        }
    }

    private static func scalar(_ bytes: [UInt8]) -> Unicode.Scalar {
        let first = UInt32(bytes[0]) & (0x7F >> UInt32(bytes.count))
        return Unicode.Scalar(bytes.dropFirst().reduce(first) { $0 << 6 | UInt32($1 & 0x3F) })!
    }
}
