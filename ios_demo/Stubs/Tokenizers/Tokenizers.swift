// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("Tokenizers is a stub here: signatures only") }

public protocol Tokenizer: Sendable {
    func encode(text: String, addSpecialTokens: Bool) -> [Int]
    func convertIdToToken(_ id: Int) -> String?
}

public class HubApi: @unchecked Sendable {
    public static let shared = HubApi()
}

/// Set by a test: what any folder's tokenizer is.
nonisolated(unsafe) public var toyTokenizer: (any Tokenizer)?

public enum AutoTokenizer {
    public static func from(modelFolder: URL, hubApi: HubApi = .shared, strict: Bool = true) async throws -> Tokenizer {
        guard let toyTokenizer else { stub() }
        return toyTokenizer
    }
}
