/// A plan: what an engine is asked, wherever it runs. `Plan(bytes)` reads it from a file, as untrusted input.
///
/// `engine`, `info` (the artifact's entry in the manifest) and `threads` say what is opened; `arithmetic`, in what else
/// than by itself the engine is to compute. Then, each where it is in the plan: `loads`, `calls`, `layers`, `cache`,
/// `timing`, `answer`, `strings`. A plan of none of these is answered with the engine's traits.
public struct Plan: Sendable {
    public let purpose: String
    public let target: String
    public let engine: String
    public let info: JsonObject
    public let threads: Int
    public let arithmetic: String
    public let texts: [PlanText]
    /// Tokens fed in order; what is looked at comes back as sketches of the logits.
    public let calls: [Call]
    /// Keys and values of so many layers are wanted.
    public let layers: Int
    /// Keys and values for calls that preset the cache.
    let cache: [Blocks]
    public let timing: Timing?
    /// Cold and warm load, before anything else is opened.
    public let loads: Bool
    public let answer: Answer?
    /// Of which the tokenizer makes ids, and a text of these again.
    public let strings: [String]?
    /// SHA-256 of the plan's canonical JSON, which a result names.
    public private(set) var digest = ""

    /// The largest token id that is fed or wanted; -1 for none.
    public var highest: Int {
        texts.reduce(-1) { max($0, $1.ids.max()!, Int($1.wanted.values.max() ?? -1)) }
    }

    init(
        purpose: String, target: String, engine: String, info: JsonObject, threads: Int, arithmetic: String,
        texts: [PlanText], calls: [Call], layers: Int, cache: [Blocks], timing: Timing?, loads: Bool, answer: Answer?,
        strings: [String]?
    ) throws {
        (self.purpose, self.target, self.engine, self.info) = (purpose, target, engine, info)
        (self.threads, self.arithmetic, self.texts, self.calls) = (threads, arithmetic, texts, calls)
        (self.layers, self.cache, self.timing, self.loads, self.answer) = (layers, cache, timing, loads, answer)
        self.strings = strings
        try check()
        digest = Sha256.hex((pythonJson(json) + "\n").utf8)
    }

    private static let most = 1 << 20  // calls, repeats, tokens of an answer
    // How many strings; bytes of one, and of all, as UTF-8.
    private static let (mostStrings, longestString, allStrings) = (1 << 12, 1 << 13, 1 << 20)

    private func check() throws {
        var problems: [String] = []
        if !(1...1024).contains(threads) { problems.append("\(threads) threads") }
        if !(0...Plan.most).contains(layers) { problems.append("\(layers) layers") }
        if calls.count > Plan.most { problems.append("\(calls.count) calls") }
        for (i, part) in cache.enumerated() where ![1, 2].contains(part.shape[0]) {
            problems.append("the cache of layer \(i)")
        }
        for (i, call) in calls.enumerated() where !can(call, first: i == 0) { problems.append("call \(i)") }
        if let timing, !can(timing) { problems.append("its timing") }
        if let answer, !can(answer) { problems.append("its answer") }
        if let strings, !can(strings) { problems.append("its strings") }
        guard problems.isEmpty else {
            throw Refusal("a plan asks what cannot be done", got: problems.prefix(5).joined(separator: ", "))
        }
    }

    /// Whether a call keeps to its text; how much the cache holds, the engine knows.
    private func can(_ call: Call, first: Bool) -> Bool {
        guard texts.indices.contains(call.text), call.start >= 0, call.start < call.stop,
            call.stop <= texts[call.text].ids.count, call.rewind ?? 0 >= 0
        else { return false }
        if let preset = call.preset, preset < 0 || cache.isEmpty || call.rewind != nil { return false }
        return !call.greedy || (!first && call.look == .all && call.rewind == nil && call.preset == nil)
    }

    private func can(_ timing: Timing) -> Bool {
        let longest = texts.first?.ids.count ?? 0
        return !timing.prompts.isEmpty && !timing.depths.isEmpty
            && (timing.prompts + timing.depths).allSatisfy { (1...max(longest, 1)).contains($0) && $0 <= longest }
            && [timing.tokens, timing.repeats].allSatisfy { (1...Plan.most).contains($0) }
            && [timing.warmups, timing.sustained].allSatisfy { (0...Plan.most).contains($0) }
    }

    private func can(_ answer: Answer) -> Bool {
        let alone = texts.count == 1 && calls.isEmpty && layers == 0 && timing == nil
        return alone && (1...Plan.most).contains(answer.maxTokens) && answer.stopIds.allSatisfy { $0 >= 0 }
    }

    private func can(_ strings: [String]) -> Bool {
        let sizes = strings.map(\.utf8.count)
        return (1...Plan.mostStrings).contains(sizes.count) && sizes.max()! <= Plan.longestString
            && sizes.reduce(0, +) <= Plan.allStrings && answer == nil
    }
}

/// Tokens to feed, and the ids whose logits are wanted at some of their positions.
public struct PlanText: Sendable {
    public let ids: [Int]
    /// Those positions, ascending.
    let at: [Int]
    /// A row of ids for each of them.
    let wanted: Table

    init(ids: [Int], at: [Int], wanted: Table) throws {
        guard let least = ids.min(), least >= 0, wanted.values.min() ?? 0 >= 0 else {
            throw Refusal("a plan's text has no tokens, or negative ones")
        }
        let ascending = zip(at, at.dropFirst()).allSatisfy(<)
        guard ascending, at.first ?? 0 >= 0, at.last ?? 0 < ids.count, at.count == wanted.rows else {
            throw Refusal("a plan's text wants logits at positions that it has not, or not in order")
        }
        (self.ids, self.at, self.wanted) = (ids, at, wanted)
    }

    /// The ids wanted at positions of a range, a row each; rows of none where nothing is said of them all.
    func rows(_ positions: Swift.Range<Int>) -> Table {
        let first = at.firstIndex { $0 >= positions.lowerBound } ?? at.count
        let found = at[first..<min(first + positions.count, at.count)]
        guard found.elementsEqual(positions) else { return Table(rows: positions.count, columns: 0, values: []) }
        let (start, stop) = (first * wanted.columns, (first + positions.count) * wanted.columns)
        return Table(rows: positions.count, columns: wanted.columns, values: Array(wanted.values[start..<stop]))
    }
}

/// Feed `ids[start..<stop]` of a text.
public struct Call: Sendable {
    /// The positions whose logits are looked at.
    public enum Look: String, Sendable {
        case none, last, all
    }

    /// What it is for, to show.
    public let stage: String
    let text: Int
    let start: Int
    let stop: Int
    let look: Look
    /// Go back to that position of the cache first.
    let rewind: Int?
    /// Feed the largest logit's token each time in place of the text's, and look at all.
    let greedy: Bool
    /// With a digest of each position's logits.
    let exact: Bool
    /// Fill the cache up to that position with the plan's `cache` first.
    let preset: Int?

    var looked: Swift.Range<Int> {
        switch look {
        case .none: stop..<stop
        case .last: stop - 1..<stop
        case .all: start..<stop
        }
    }
}

/// Phases over the first text, each once uncounted and then `repeats` times.
public struct Timing: Sendable {
    /// Lengths, fed until the first token is chosen.
    public let prompts: [Int]
    /// Tokens in the cache before `tokens` are decoded greedily.
    public let depths: [Int]
    public let tokens: Int
    public let repeats: Int
    /// Before all phases, the shortest prompt and decoding at the smallest depth, until two in a row agree within 5 %,
    /// or that many were made.
    public let warmups: Int
    /// Seconds of decoding at the smallest depth, behind all phases.
    public let sustained: Int
}

/// What follows the first text, token by token.
public struct Answer: Sendable {
    public let maxTokens: Int
    public let stopIds: [Int]
    public let sampling: Sampling
}
