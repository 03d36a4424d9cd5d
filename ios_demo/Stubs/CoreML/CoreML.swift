// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("CoreML is a stub here: signatures only") }

public class MLModel: NSObject, @unchecked Sendable {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { stub() }
    public var modelDescription: MLModelDescription { stub() }
    public class func compileModel(at url: URL) async throws -> URL { stub() }
    public func makeState() -> MLState { stub() }
    public func prediction(from inputFeatures: any MLFeatureProvider, using state: MLState) throws -> any MLFeatureProvider {
        stub()
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
    public override init() { stub() }
    public var computeUnits: MLComputeUnits {
        get { stub() }
        set { stub() }
    }
    public var functionName: String? {
        get { stub() }
        set { stub() }
    }
}

public class MLModelDescription: NSObject {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { stub() }
    public var outputDescriptionsByName: [String: MLFeatureDescription] { stub() }
    public var stateDescriptionsByName: [String: MLFeatureDescription] { stub() }
}

public class MLFeatureDescription: NSObject {
    public var multiArrayConstraint: MLMultiArrayConstraint? { stub() }
}

public class MLMultiArrayConstraint: NSObject {
    public var shape: [NSNumber] { stub() }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { stub() }
    public var featureNames: Set<String> { stub() }
    public func featureValue(for featureName: String) -> MLFeatureValue? { stub() }
}

public class MLFeatureValue: NSObject {
    public convenience init<Scalar>(shapedArray: MLShapedArray<Scalar>) where Scalar: MLShapedArrayScalar { stub() }
    public func shapedArrayValue<Scalar>(of type: Scalar.Type) -> MLShapedArray<Scalar>? where Scalar: MLShapedArrayScalar {
        stub()
    }
}

public protocol MLShapedArrayScalar {}

extension Int32: MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}
extension Float16: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar>: @unchecked Sendable where Scalar: MLShapedArrayScalar {
    public init<S>(scalars: S, shape: [Int]) where Scalar == S.Element, S: Sequence { stub() }
    public var shape: [Int] { stub() }
    public var scalars: [Scalar] { stub() }
}
