import ExecuTorch
import Foundation
import SmolshipCore

/// A smolship .pte run call by call: forward(ids int64 [1, S], position int64 [1]) -> logits float32 [1, 1, V] of the
/// last token. The cache lies inside the program and is written at the position that each call names, so that
/// rewinding costs nothing.
final class ExecuTorchEngine: TokenEngine {
    let vocab: Int
    let capacity: Int
    let chunk: Int?
    let runtime = "ExecuTorch"
    private(set) var position = 0
    private var module: Module?

    /// `chunk` are the most tokens of one call.
    init(model: URL, capacity: Int, vocab: Int, chunk: Int) throws {
        let module = Module(filePath: model.path)
        do {
            try module.load("forward")
        } catch {
            throw Refusal(
                "ExecuTorch cannot open the program", got: error.localizedDescription,
                todo: "close other apps, or take a smaller model; else export the bundle again")
        }
        (self.module, self.vocab, self.capacity, self.chunk) = (module, vocab, capacity, chunk)
    }

    func forward(_ ids: [Int]) throws -> [Float] {
        guard let module else { throw Refusal("the engine is closed") }
        let tokens = Tensor<Int64>(ids.map(Int64.init), shape: [1, ids.count])
        let place = Tensor<Int64>([Int64(position)], shape: [1])
        let outputs: [Value]
        do {
            outputs = try module.forward([tokens, place])
        } catch {
            throw Refusal("ExecuTorch cannot run the program", got: error.localizedDescription, todo: "export it again")
        }
        let logits: Tensor<Float>? = outputs.first?.tensor()
        guard let logits else {
            throw Refusal(
                "ExecuTorch gave other outputs than the program's", got: outputs.count, expected: "float32 logits")
        }
        position += ids.count
        return logits.scalars()
    }

    func rewind(to position: Int) {
        self.position = position
    }

    func close() {
        module = nil
    }
}
