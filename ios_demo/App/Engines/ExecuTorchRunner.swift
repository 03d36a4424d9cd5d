import ExecuTorchLLM
import Foundation
import SmolshipCore

/// ExecuTorch's own runner: its tokenizer, its loop, and sampling by temperature alone.
///
/// Its cache holds what was fed and said, but never the last token that it chose. After a whole answer that is an end
/// token, which the next prompt writes again; after any other one TextChat begins anew.
final class ExecuTorchRunner: TextEngine {
    let capacity: Int
    private let ends: Set<ExactString>
    private var runner: TextRunner?

    /// Of a .pte and a tokenizer.json; `ends` are the texts of the tokens that end an answer, which the runner says too.
    init(model: URL, tokenizer: URL, capacity: Int, ends: [String]) throws {
        let runner = TextRunner(modelPath: model.path, tokenizerPath: tokenizer.path)
        do {
            try runner.load()
        } catch {
            throw Refusal(
                "ExecuTorch cannot open the program", got: error.localizedDescription,
                todo: "close other apps, or take a smaller model; else export the bundle again")
        }
        (self.runner, self.capacity, self.ends) = (runner, capacity, Set(ends.map(ExactString.init)))
    }

    func generate(
        _ text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Bool
    ) throws -> Ending {
        guard let runner else { throw Refusal("the engine is closed") }
        guard !text.isEmpty else { throw Refusal("the runner needs a text to go on from", got: "an empty one") }
        try ExecuTorchRunner.check(sampling)
        let answer = Answer(ends: ends, maxTokens: maxTokens)
        let start = uptime()
        do {
            try withoutActuallyEscaping(sink) { sink in
                let config = Config {
                    $0.isEchoEnabled = false
                    $0.temperature = sampling.temperature
                    ($0.bosCount, $0.eosCount) = (0, 0)  // the chat template has written them
                    if let maxTokens { $0.maximumNewTokens = maxTokens }
                }
                try runner.generate(text, config) { piece in
                    if !answer.take(piece, at: uptime() - start, sink) { runner.stop() }
                }
            }
        } catch {
            throw Refusal(
                "ExecuTorch cannot run the program", got: error.localizedDescription,
                todo: "begin a new chat: the conversation may be longer than the context")
        }
        return answer.ending
    }

    func reset() {
        runner?.reset()
    }

    func close() {
        runner = nil
    }

    /// Refuses what the runner would leave out without a word.
    static func check(_ sampling: Sampling) throws {
        guard sampling.topK == 0, sampling.topP == 1, sampling.minP == 0, sampling.repetitionPenalty == 1,
            sampling.seed == nil
        else {
            throw Refusal(
                "ExecuTorch's runner samples by temperature alone", got: sampling,
                expected: "no top-k, top-p, min-p, repetition penalty or seed")
        }
    }
}

/// What the runner says of one answer.
private final class Answer {
    private let ends: Set<ExactString>
    private let maxTokens: Int?
    private var times: [Double] = []
    private var broken = false
    private var stopped = false
    private var lost = false

    init(ends: Set<ExactString>, maxTokens: Int?) {
        (self.ends, self.maxTokens) = (ends, maxTokens)
    }

    /// One token's text; whether to go on. A character whose bytes come in several tokens does not pass the runner's
    /// strings: empty pieces stand for it, and U+FFFD here, so that the loss is seen.
    func take(_ piece: String, at time: Double, _ sink: (String) -> Bool) -> Bool {
        guard !broken, !stopped else { return false }
        times.append(time)
        if ends.contains(ExactString(piece)) {
            stopped = true
            return true  // the runner ends by itself
        }
        if piece.isEmpty {
            lost = true
            return true
        }
        broken = !sink((lost ? "\u{FFFD}" : "") + piece)
        lost = false
        return !broken
    }

    var end: End {
        if stopped { return .stop }
        if broken { return .interrupted }
        return times.count == maxTokens ? .maxTokens : .context
    }

    var ending: Ending {
        let span = (times.last ?? 0) - (times.first ?? 0)
        return Ending(
            end: end, tokens: times.count - (stopped ? 1 : 0), ttftSeconds: times.first,
            tokensPerSecond: span > 0 ? Double(times.count - 1) / span : nil)
    }
}
