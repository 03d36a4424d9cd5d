// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("ExecuTorchLLM is a stub here: signatures only") }

/// Set by a test: what the runner says to a prompt, piece by piece, the end token's text included.
nonisolated(unsafe) public var toyRunner: ((String) -> [String])?

public class TextRunner: NSObject {
    private var stopped = false
    public private(set) var prompts: [String] = []
    /// The runners that were made, for tests.
    nonisolated(unsafe) public static var made: [TextRunner] = []

    public convenience init(modelPath: String, tokenizerPath: String) {
        self.init(modelPath: modelPath, tokenizerPath: tokenizerPath, specialTokens: [])
    }
    public init(modelPath: String, tokenizerPath: String, specialTokens: [String]) {
        super.init()
        TextRunner.made.append(self)
    }
    public func isLoaded() -> Bool { toyRunner != nil }
    public func load() throws { if toyRunner == nil { stub() } }

    /// As the real one: a stop during the first piece is forgotten, and the end token is said, too.
    public func generate(_ prompt: String, _ config: Config, tokenCallback: ((String) -> Void)? = nil) throws {
        guard let toyRunner else { stub() }
        prompts.append(prompt)
        for (i, piece) in toyRunner(prompt).prefix(config.maximumNewTokens < 0 ? .max : config.maximumNewTokens)
            .enumerated()
        {
            if i <= 1 { stopped = false }
            tokenCallback?(piece)
            if i > 0, stopped { return }
        }
    }
    public func stop() { stopped = true }
    public func reset() { prompts.append("reset") }
}

public final class Config: NSObject {
    public var isEchoEnabled = true
    public var maximumNewTokens = -1
    public var isWarming = false
    public var sequenceLength = -1
    public var temperature = 0.8
    public var bosCount = 0
    public var eosCount = 0

    public init(_ block: (Config) -> Void) {
        super.init()
        block(self)
    }
}
