// Signatures only: see ../README.md.
import Foundation

func stub() -> Never { fatalError("ExecuTorch is a stub here: signatures only") }

public protocol Scalar {}

extension Int64: Scalar {}
extension Float: Scalar {}

public protocol ValueConvertible {}

public class Value: NSObject, ValueConvertible {
    public func tensor<T: Scalar>() -> Tensor<T>? { stub() }
}

public enum ShapeDynamism: Int {
    case `static`, dynamicBound, dynamicUnbound
}

public final class Tensor<T: Scalar>: ValueConvertible {
    public convenience init(
        _ scalars: [T], shape: [Int] = [], strides: [Int] = [], dimensionOrder: [Int] = [],
        shapeDynamism: ShapeDynamism = .dynamicBound
    ) { stub() }
    public var shape: [Int] { stub() }
    public func scalars() -> [T] { stub() }
}

public class Module: NSObject {
    public convenience init(filePath: String) { stub() }
    public func load(_ method: String) throws { stub() }
    public func forward(_ inputs: [ValueConvertible]) throws -> [Value] { stub() }
}
