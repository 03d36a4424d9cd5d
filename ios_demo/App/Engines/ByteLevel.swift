import Foundation
import SmolshipCore

/// How a byte-level vocabulary (Llama 3, SmolLM, Qwen) spells bytes: printable Latin-1 characters stand for
/// themselves, the others, in order, for U+0100 and up.
struct ByteLevel {
    /// Tokens that the tokenizer's file calls special: they are no text.
    let special: Set<Int>

    private static let bytes: [Unicode.Scalar: UInt8] = {
        let plain = [0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF].flatMap { $0.map(UInt8.init) }
        let others = (0...255).map(UInt8.init).filter { !plain.contains($0) }
        let named = plain.map { (Unicode.Scalar($0), $0) }
        return Dictionary(
            uniqueKeysWithValues: named + others.enumerated().map { (Unicode.Scalar(UInt32(256 + $0))!, $1) })
    }()

    /// Of the bytes of a tokenizer.json. Refuses one whose decoder does more than join bytes: such a decoder looks at
    /// the text around a token.
    init(tokenizer: Data) throws {
        let file: File
        do {
            file = try JSONDecoder().decode(File.self, from: tokenizer)
        } catch {
            throw Refusal(
                "the tokenizer cannot be read", got: error, expected: "a tokenizer.json of Hugging Face tokenizers")
        }
        let steps = file.decoder.map { $0.decoders ?? [$0] } ?? []
        guard steps.map(\.type) == ["ByteLevel"] else {
            throw Refusal(
                "this app does not read tokens as this tokenizer writes them",
                got: steps.isEmpty ? "no decoder" : steps.map(\.type).joined(separator: ", "), expected: "ByteLevel",
                todo: "take ExecuTorch's runner, which has a tokenizer of its own")
        }
        special = Set((file.added_tokens ?? []).filter { $0.special ?? false }.map(\.id))
    }

    /// The bytes of a token that the vocabulary spells `piece`.
    func bytes(_ id: Int, _ piece: String?) -> [UInt8] {
        guard let piece, !special.contains(id) else { return [] }
        let bytes = piece.unicodeScalars.map { ByteLevel.bytes[$0] }
        return bytes.contains(nil) ? Array(piece.utf8) : bytes.compactMap { $0 }
    }

    /// What is looked at in a tokenizer.json.
    private struct File: Decodable {
        struct Added: Decodable {
            let id: Int
            let special: Bool?
        }

        final class Step: Decodable {
            let type: String
            let decoders: [Step]?
        }

        let added_tokens: [Added]?
        let decoder: Step?
    }
}
