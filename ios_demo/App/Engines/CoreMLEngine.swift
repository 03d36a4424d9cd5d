import CoreML
import Foundation
import SmolshipCore

/// A smolship Core ML package: `prefill` takes a whole chunk of tokens and `decode` one; both write keys and values into
/// one state, at the position that each call names. So rewinding costs nothing: what lies behind the position is never
/// seen, and is written over.
///
/// C tokens of a chunk, T tokens that the state holds, V vocabulary:
/// input_ids int32 [1, C or 1], position int32 [1] -> logits float16 [1, 1, V] of the last token.
final class CoreMLEngine: TokenEngine {
    let vocab: Int
    let capacity: Int
    let runtime: String
    private(set) var position = 0

    private var prefill: Function?
    private var decode: Function?
    private var state: MLState?

    /// Open a compiled package, whose manifest says that it holds `capacity` tokens and that the model knows `vocab`.
    init(compiled: URL, capacity: Int, vocab: Int, units: ComputeUnits) throws {
        let prefill = try Function("prefill", of: compiled, units)
        let decode = try Function("decode", of: compiled, units)
        guard decode.tokens == 1, prefill.vocab == decode.vocab, decode.vocab == vocab else {
            throw Refusal(
                "the package is not the manifest's",
                got: "prefill of \(prefill.tokens) tokens and \(prefill.vocab) logits, "
                    + "decode of \(decode.tokens) and \(decode.vocab)",
                expected: "one token for decode, \(vocab) logits", todo: "export the bundle again")
        }
        (self.prefill, self.decode, state) = (prefill, decode, decode.model.makeState())
        (self.vocab, self.capacity, runtime) = (vocab, capacity, "Core ML, \(units.rawValue)")
    }

    /// The most tokens of one call. Longer prompts come in parts, so that they can be broken off between two.
    var chunk: Int? { prefill?.tokens }

    /// A whole chunk goes through `prefill`, what is shorter token by token through `decode`.
    func forward(_ ids: [Int]) throws -> [Float] {
        guard let prefill, let decode, let state else { throw Refusal("the engine is closed") }
        var logits: MLFeatureValue?
        var at = 0
        while at < ids.count {
            let function = ids.count - at >= prefill.tokens ? prefill : decode
            let part = ids[at..<at + function.tokens]
            logits = try autoreleasepool { try function.run(part, at: position, state) }
            position += function.tokens
            at += function.tokens
        }
        guard let values = logits?.shapedArrayValue(of: Float16.self) else {
            throw Refusal("Core ML gave other logits than the package declares", got: logits, expected: "float16")
        }
        return values.scalars.map(Float.init)
    }

    func rewind(to position: Int) {
        self.position = position
    }

    func close() {
        (prefill, decode, state) = (nil, nil, nil)
    }
}

/// Where Core ML may compute, by coremltools' names. The packages are made for the GPU.
enum ComputeUnits: String, CaseIterable, Codable, Sendable {
    case cpuAndGPU = "CPU_AND_GPU"
    case cpuOnly = "CPU_ONLY"
    case cpuAndNE = "CPU_AND_NE"
    case all = "ALL"

    fileprivate var core: MLComputeUnits {
        switch self {
        case .cpuAndGPU: .cpuAndGPU
        case .cpuOnly: .cpuOnly
        case .cpuAndNE: .cpuAndNeuralEngine
        case .all: .all
        }
    }
}

/// One function of a compiled package.
private struct Function {
    let model: MLModel
    let tokens: Int
    let vocab: Int

    init(_ name: String, of compiled: URL, _ units: ComputeUnits) throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.core
        configuration.functionName = name
        do {
            model = try MLModel(contentsOf: compiled, configuration: configuration)
        } catch {
            throw Refusal(
                "Core ML cannot open the package", got: error.localizedDescription,
                todo: "close other apps, or take a smaller model; else export the bundle again")
        }
        let description = model.modelDescription
        let inputs = description.inputDescriptionsByName.mapValues(shape(of:))
        let logits = description.outputDescriptionsByName["logits"].map(shape(of:)) ?? []
        let ids = inputs["input_ids"] ?? []
        guard inputs.count == 2, ids.count == 2, ids[0] == 1, ids[1] >= 1, inputs["position"] == [1],
            logits.count == 3, logits.dropLast() == [1, 1], description.stateDescriptionsByName["keys"] != nil,
            description.stateDescriptionsByName["values"] != nil
        else {
            throw Refusal(
                "function \(name) of the package is not a decoder's", got: "inputs \(inputs), logits \(logits)",
                expected: "input_ids [1, C], position [1], states keys and values, logits [1, 1, V]",
                todo: "export the bundle again")
        }
        (tokens, vocab) = (ids[1], logits[2])
    }

    /// Run the function on `ids`, the first of them at `position`.
    func run(_ ids: ArraySlice<Int>, at position: Int, _ state: MLState) throws -> MLFeatureValue? {
        let ids = MLShapedArray<Int32>(scalars: ids.map(Int32.init), shape: [1, tokens])
        let position = MLShapedArray<Int32>(scalars: [Int32(position)], shape: [1])
        let inputs = try MLDictionaryFeatureProvider(dictionary: [
            "input_ids": MLFeatureValue(shapedArray: ids), "position": MLFeatureValue(shapedArray: position),
        ])
        do {
            return try model.prediction(from: inputs, using: state).featureValue(for: "logits")
        } catch {
            throw Refusal(
                "Core ML cannot run the package", got: error.localizedDescription,
                todo: "the GPU computes for an app on the screen alone; come back to it and ask again")
        }
    }
}

private func shape(of description: MLFeatureDescription) -> [Int] {
    description.multiArrayConstraint?.shape.map(\.intValue) ?? []
}
