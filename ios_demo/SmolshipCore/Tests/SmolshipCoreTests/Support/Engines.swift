@testable import SmolshipCore

/// Puts the largest logit on the given tokens in turn, whatever it is fed. A nil gives logits that are no numbers, and
/// past the last one it throws.
final class Says: TokenEngine {
    let vocab: Int
    let capacity: Int
    let chunk: Int?
    private(set) var position = 0
    private(set) var fed: [Int] = []
    var ids: [Int?]
    private let forgets: Int?
    private var reached = 0

    init(_ ids: [Int?], vocab: Int = 50, capacity: Int, forgets: Int? = nil, chunk: Int? = nil) {
        (self.ids, self.vocab, self.capacity, self.forgets, self.chunk) = (ids, vocab, capacity, forgets, chunk)
    }

    var earliest: Int { forgets.map { max(reached - $0, 0) } ?? 0 }

    func forward(_ ids: [Int]) throws -> [Float] {
        guard !self.ids.isEmpty else { throw Refusal("the engine has nothing to say") }
        reached = max(position == 0 ? 0 : reached, position + ids.count)
        position += ids.count
        fed += ids
        guard let wanted = self.ids.removeFirst() else { return [Float](repeating: .nan, count: vocab) }
        var logits = [Float](repeating: 0, count: vocab)
        logits[wanted] = 1
        return logits
    }

    func takeFed() -> [Int] {
        defer { fed = [] }
        return fed
    }

    func rewind(to position: Int) { self.position = position }
    func close() {}
}

/// The toy engine of tests/apps/plan.py: its logits are exact, and its clock moves with the tokens it is fed.
final class Toy: TokenEngine {
    let vocab: Int
    let capacity: Int
    let chunk: Int?
    let runtime = "toy"
    private let forgets: Int?
    private let cold: Int
    private let nan: [Int]?
    private var states = [1]  // behind 0, 1, … tokens
    private var fed = 0
    private var reached = 0
    private(set) var position = 0
    private(set) var closed = false
    let time: ToyTime

    init(_ engine: Json, _ time: ToyTime = ToyTime()) {
        vocab = engine["vocab"]?.intValue ?? 0
        capacity = engine["capacity"]?.intValue ?? 0
        chunk = engine["chunk"]?.intValue
        forgets = engine["forgets"]?.intValue
        cold = engine["cold"]?.intValue ?? 0
        nan = engine["nan"]?.arrayValue?.compactMap(\.intValue)
        self.time = time
        time.ticks = 0
    }

    var earliest: Int { forgets.map { max(reached - $0, 0) } ?? 0 }

    func forward(_ ids: [Int]) -> [Float] {
        states.removeLast(states.count - 1 - position)
        for token in ids {
            time.ticks += (fed < cold ? 8 : 1) * (1 + (states.count - 1) / 8)
            fed += 1
            states.append((31 * states.last! + token + 7) % 65521)
        }
        let last = states.count - 1
        reached = max(position == 0 ? 0 : reached, last)
        position = last
        var logits = (0..<vocab).map { v in
            let number = Float((13 * states[last] * (v + 1) + v * v) % 1009 - 504) / 16
            return number == 0 && v % 2 == 1 ? -0 : number
        }
        if let nan, nan[0] == last - 1 { logits[nan[1]] = .nan }
        return logits
    }

    func rewind(to position: Int) { self.position = position }
    func close() { closed = true }
}

/// Its tokenizer.
struct ToyTokenizer: EngineTokenizer {
    let name: String
    let vocab: Int

    /// Where a case's engine has one.
    init?(_ engine: Json) {
        guard let name = engine["tokenizer"]?.stringValue else { return nil }
        (self.name, vocab) = (name, engine["vocab"]?.intValue ?? 0)
    }

    func encode(_ text: String, special: Bool) -> [Int]? {
        text.hasPrefix("!") ? nil : (special ? [1] : []) + text.utf8.map { Int($0) % vocab }
    }

    func decode(_ ids: [Int]) -> String {
        String(String.UnicodeScalarView(ids.map { Unicode.Scalar(UInt8(97 + $0 % 26)) }))
    }
}

final class ToyTime {
    var ticks = 0
    func now() -> Double { Double(ticks) / 512 }
}

/// An id for each byte of UTF-8, and 256, an empty text.
struct Bytes: Tokenizer {
    func encode(_ text: String) -> [Int] { text.utf8.map(Int.init) }
    func bytes(_ id: Int) -> [UInt8] { id < 256 ? [UInt8(id)] : [] }
}
