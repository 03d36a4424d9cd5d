// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("ExecuTorch is a stub here: signatures only") }

/// Set by a test: the logits behind ids, the first of them at a position.
nonisolated(unsafe) public var toyProgram: (([Int64], Int64) throws -> [Float])?

public protocol Scalar {}

extension Int64: Scalar {}
extension Float: Scalar {}

public protocol ValueConvertible {}

public class Value: NSObject, ValueConvertible {
    private let content: Any

    init(_ content: Any) { self.content = content }
    public func tensor<T: Scalar>() -> Tensor<T>? { content as? Tensor<T> }
}

public enum ShapeDynamism: Int {
    case `static`, dynamicBound, dynamicUnbound
}

public final class Tensor<T: Scalar>: ValueConvertible {
    private let values: [T]
    public let shape: [Int]

    public init(
        _ scalars: [T], shape: [Int] = [], strides: [Int] = [], dimensionOrder: [Int] = [],
        shapeDynamism: ShapeDynamism = .dynamicBound
    ) {
        precondition(scalars.count == shape.reduce(1, *))
        (values, self.shape) = (scalars, shape)
    }
    public func scalars() -> [T] { values }
}

public class Module: NSObject {
    public init(filePath: String) {}
    public func load(_ method: String) throws { if toyProgram == nil { stub() } }

    public func forward(_ inputs: [ValueConvertible]) throws -> [Value] {
        guard let toyProgram, inputs.count == 2, let ids = inputs[0] as? Tensor<Int64>,
            let place = inputs[1] as? Tensor<Int64>,
            ids.shape.count == 2, place.shape == [1]
        else { stub() }
        let logits = try toyProgram(ids.scalars(), place.scalars()[0])
        return [Value(Tensor<Float>(logits, shape: [1, 1, logits.count]))]
    }
}
