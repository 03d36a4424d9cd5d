// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("CoreML is a stub here: signatures only") }

/// What a test runs in place of a package: its functions by name, with the tokens of one call.
public protocol ToyPackage: AnyObject {
    var functions: [String: Int] { get }
    var vocab: Int { get }
    /// The logits behind `ids`, the first of them at `position`.
    func run(_ function: String, _ ids: [Int32], at position: Int32) throws -> [Float16]
}

/// Set by a test; without it every model is a stub.
nonisolated(unsafe) public var toyPackage: (any ToyPackage)?

public class MLModel: NSObject, @unchecked Sendable {
    private let toy: any ToyPackage
    private let function: String

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        guard let toyPackage, let name = configuration.functionName else { stub() }
        guard FileManager.default.fileExists(atPath: url.path) else { throw CocoaError(.fileNoSuchFile) }
        (toy, function) = (toyPackage, name)
    }

    public var modelDescription: MLModelDescription { MLModelDescription(toy.functions[function] ?? 0, toy.vocab) }

    public class func compileModel(at url: URL) async throws -> URL {
        guard toyPackage != nil else { stub() }
        guard FileManager.default.fileExists(atPath: url.path) else { throw CocoaError(.fileNoSuchFile) }
        let made = FileManager.default.temporaryDirectory.appending(path: "toy-\(UUID().uuidString).mlmodelc")
        try FileManager.default.createDirectory(at: made, withIntermediateDirectories: true)
        return made
    }

    public func makeState() -> MLState { MLState() }

    public func prediction(from inputFeatures: any MLFeatureProvider, using state: MLState) throws
        -> any MLFeatureProvider
    {
        guard let ids = inputFeatures.featureValue(for: "input_ids")?.shapedArrayValue(of: Int32.self),
            let position = inputFeatures.featureValue(for: "position")?.shapedArrayValue(of: Int32.self),
            ids.shape == [1, toy.functions[function]!], position.shape == [1]
        else { stub() }
        let logits = try toy.run(function, ids.scalars, at: position.scalars[0])
        let value = MLFeatureValue(shapedArray: MLShapedArray<Float16>(scalars: logits, shape: [1, 1, toy.vocab]))
        return try MLDictionaryFeatureProvider(dictionary: ["logits": value])
    }

    public func prediction(
        from input: any MLFeatureProvider, using state: MLState, options: MLPredictionOptions = MLPredictionOptions()
    ) async throws -> any MLFeatureProvider { stub() }
}

public final class MLState: NSObject {}

public final class MLPredictionOptions: NSObject {}

public enum MLComputeUnits: Int, @unchecked Sendable {
    case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public class MLModelConfiguration: NSObject {
    public var computeUnits = MLComputeUnits.all
    public var functionName: String?
}

public class MLModelDescription: NSObject {
    public let inputDescriptionsByName: [String: MLFeatureDescription]
    public let outputDescriptionsByName: [String: MLFeatureDescription]
    public let stateDescriptionsByName: [String: MLFeatureDescription]

    init(_ tokens: Int, _ vocab: Int) {
        inputDescriptionsByName = [
            "input_ids": MLFeatureDescription([1, tokens]), "position": MLFeatureDescription([1]),
        ]
        outputDescriptionsByName = ["logits": MLFeatureDescription([1, 1, vocab])]
        stateDescriptionsByName = ["keys": MLFeatureDescription(nil), "values": MLFeatureDescription(nil)]
    }
}

public class MLFeatureDescription: NSObject {
    public let multiArrayConstraint: MLMultiArrayConstraint?

    init(_ shape: [Int]?) { multiArrayConstraint = shape.map(MLMultiArrayConstraint.init) }
}

public class MLMultiArrayConstraint: NSObject {
    public let shape: [NSNumber]

    init(_ shape: [Int]) { self.shape = shape.map { NSNumber(value: $0) } }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    private let values: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws { values = dictionary.compactMapValues { $0 as? MLFeatureValue } }
    public var featureNames: Set<String> { Set(values.keys) }
    public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

public class MLFeatureValue: NSObject {
    private let array: Any

    public init<Scalar>(shapedArray: MLShapedArray<Scalar>) where Scalar: MLShapedArrayScalar { array = shapedArray }
    public func shapedArrayValue<Scalar>(of type: Scalar.Type) -> MLShapedArray<Scalar>?
    where Scalar: MLShapedArrayScalar {
        array as? MLShapedArray<Scalar>
    }
}

public protocol MLShapedArrayScalar {}

extension Int32: MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}
extension Float16: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar>: @unchecked Sendable where Scalar: MLShapedArrayScalar {
    public let scalars: [Scalar]
    public let shape: [Int]

    public init<S>(scalars: S, shape: [Int]) where Scalar == S.Element, S: Sequence {
        (self.scalars, self.shape) = (Array(scalars), shape)
    }
}
