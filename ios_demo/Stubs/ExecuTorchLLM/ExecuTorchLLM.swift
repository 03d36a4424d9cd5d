// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("ExecuTorchLLM is a stub here: signatures only") }

public class TextRunner: NSObject {
    public convenience init(modelPath: String, tokenizerPath: String) { stub() }
    public init(modelPath: String, tokenizerPath: String, specialTokens: [String]) { stub() }
    public func isLoaded() -> Bool { stub() }
    public func load() throws { stub() }
    public func generate(_ prompt: String, _ config: Config, tokenCallback: ((String) -> Void)? = nil) throws { stub() }
    public func stop() { stub() }
    public func reset() { stub() }
}

public final class Config: NSObject {
    public convenience init(_ block: (Config) -> Void) { stub() }
    public var isEchoEnabled: Bool {
        get { stub() }
        set { stub() }
    }
    public var maximumNewTokens: Int {
        get { stub() }
        set { stub() }
    }
    public var isWarming: Bool {
        get { stub() }
        set { stub() }
    }
    public var sequenceLength: Int {
        get { stub() }
        set { stub() }
    }
    public var temperature: Double {
        get { stub() }
        set { stub() }
    }
    public var bosCount: Int {
        get { stub() }
        set { stub() }
    }
    public var eosCount: Int {
        get { stub() }
        set { stub() }
    }
}
