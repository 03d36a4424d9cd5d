import Foundation
import SmolshipCore
import Tokenizers

/// The bundle's tokenizer.json, read by swift-transformers.
final class BundleTokenizer: SmolshipCore.Tokenizer, EngineTokenizer, Sendable {
    let name = "swift-transformers"
    private let inner: any Tokenizers.Tokenizer
    private let bytes: ByteLevel

    /// Of the bundle in `folder`, whose files were held against the manifest before.
    static func open(_ folder: URL) async throws -> BundleTokenizer {
        let raw = try Data(contentsOf: folder.appending(path: "tokenizer.json"), options: .mappedIfSafe)
        let bytes = try ByteLevel(tokenizer: raw)
        do {
            return BundleTokenizer(try await AutoTokenizer.from(modelFolder: folder), bytes)
        } catch {
            throw Refusal(
                "swift-transformers cannot read the tokenizer", got: error.localizedDescription,
                todo: "take ExecuTorch's runner, which has a tokenizer of its own")
        }
    }

    private init(_ inner: any Tokenizers.Tokenizer, _ bytes: ByteLevel) {
        (self.inner, self.bytes) = (inner, bytes)
    }

    func encode(_ text: String) -> [Int] {
        inner.encode(text: text, addSpecialTokens: false)
    }

    func bytes(_ id: Int) -> [UInt8] {
        bytes.bytes(id, inner.convertIdToToken(id))
    }

    func encode(_ text: String, special: Bool) -> [Int]? {
        inner.encode(text: text, addSpecialTokens: special)
    }

    /// As the chat shows them, piece by piece.
    func decode(_ ids: [Int]) -> String {
        String(decoding: ids.flatMap(bytes), as: UTF8.self)
    }
}
