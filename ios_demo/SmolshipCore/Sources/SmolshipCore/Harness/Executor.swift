import Foundation

/// Has an engine do what a plan asks.
public struct Executor {
    public let plan: Plan
    public let machine: Machine
    private let clock: TimeSource
    private let memory: () -> Memory?
    private let tokenizer: (any EngineTokenizer)?

    /// `memory` reads that of this process; `tokenizer` is asked for the plan's strings. Throws Refusal for a plan that
    /// no app's engine can execute.
    public init(
        _ plan: Plan, machine: Machine, clock: @escaping TimeSource = uptime,
        memory: @escaping () -> Memory? = { nil }, tokenizer: (any EngineTokenizer)? = nil
    ) throws {
        (self.plan, self.machine, self.clock, self.memory) = (plan, machine, clock, memory)
        self.tokenizer = tokenizer
        guard plan.arithmetic.isEmpty || machine.arithmetics.contains(plan.arithmetic) else {
            throw Refusal(
                "the engine does not compute in that arithmetic", got: plan.arithmetic,
                expected: machine.arithmetics.isEmpty ? "its own" : machine.arithmetics.sorted().joined(separator: ", ")
            )
        }
        guard plan.calls.allSatisfy({ $0.preset == nil }) else {
            throw Refusal(
                "this engine does not let its cache be written", got: "a call that presets it",
                todo: "make a plan for an engine whose traits have no presets")
        }
    }

    /// Opens the engine, once more where the plan asks for loads, executes and closes it. `progress` is told the stage,
    /// `token` each token of an answer. Throws Refusal where the engine cannot do it, CancellationError where one of
    /// both returns false.
    public func run(
        open: () throws -> any TokenEngine, progress: OnProgress = { _, _, _ in true },
        token: (Int) -> Bool = { _ in true }
    ) throws -> PlanResult {
        let before = memory()
        try goOn(progress("loading", 0, plan.loads ? 2 : 1))
        let (engine, loads) = plan.loads ? try loaded(open, progress) : (try open(), nil)
        defer { engine.close() }
        guard plan.highest < engine.vocab else {
            throw Refusal(
                "the plan has tokens that the model has not", got: plan.highest, expected: "below \(engine.vocab)")
        }
        let start = uptime()
        let seen = try looked(engine, progress)
        let times = try plan.timing.map { timing in
            try Stopwatch(engine: engine, tokens: plan.texts[0].ids, timing: timing, clock: clock).times(progress)
        }
        let generated = try plan.answer.map { try answered($0, engine, token) }
        let strings = try plan.strings.map { try tokenized($0, progress) }
        return PlanResult(
            plan: plan, machine: machine, traits: Traits(engine, tokenizer: tokenizer?.name),
            seconds: uptime() - start, seen: seen, loads: loads, times: times, generated: generated, strings: strings,
            memoryBeforeLoad: before, memory: before == nil ? nil : memory())
    }

    /// The engine of the second load, and the times of both; the first token belongs to them, as engines put work off
    /// until then.
    private func loaded(
        _ open: () throws -> any TokenEngine, _ progress: OnProgress
    ) throws -> (any TokenEngine, Loads?) {
        func load() throws -> (any TokenEngine, Double) {
            let start = uptime()
            let engine = try open()
            do {
                _ = try engine.feed([0])
                let ms = 1000 * (uptime() - start)
                try engine.goBack(to: 0)
                return (engine, ms)
            } catch {
                engine.close()
                throw error
            }
        }
        let (first, cold) = try load()
        first.close()
        try goOn(progress("loading", 1, 2))
        let (second, warm) = try load()
        return (second, Loads(coldMs: cold, warmMs: warm))
    }

    /// A sketch of what each call looks at. App engines give the logits of a call's last token alone, so all positions
    /// are looked at by single tokens.
    private func looked(_ engine: any TokenEngine, _ progress: OnProgress) throws -> [Seen] {
        var last: [Float] = []  // logits, of the call before too
        return try plan.calls.enumerated().map { i, call in
            func goesOn() -> Bool { progress(call.stage, i, plan.calls.count) }
            try goOn(goesOn())
            if let place = call.rewind { try engine.goBack(to: place) }
            let text = plan.texts[call.text]
            var seen = Seen(wanted: text.rows(call.looked), exact: call.exact)
            guard call.look == .all else {
                let ids = Array(text.ids[call.start..<call.stop])
                guard let logits = try engine.feed(ids, between: goesOn) else { throw CancellationError() }
                last = logits
                if call.look == .last { seen.add(last) }
                return seen
            }
            for place in call.start..<call.stop {
                if place % 64 == 0 { try goOn(goesOn()) }
                guard let logits = try engine.feed([call.greedy ? largestIndex(last) : text.ids[place]]) else { break }
                last = logits
                seen.add(last)
            }
            return seen
        }
    }

    private func tokenized(_ strings: [String], _ progress: OnProgress) throws -> [PlanTokens] {
        guard let tokenizer else {
            throw Refusal(
                "this engine has no tokenizer", got: "a plan with strings",
                expected: "none: its traits name none")
        }
        return try strings.enumerated().map { i, text in
            if i % 64 == 0 { try goOn(progress("tokenizer", i, strings.count)) }
            return try PlanTokens(text, tokenizer)
        }
    }

    private func answered(_ answer: Answer, _ engine: any TokenEngine, _ token: (Int) -> Bool) throws -> Generated {
        let generation = try Generation(
            engine, prompt: plan.texts[0].ids, maxTokens: answer.maxTokens, stopIds: Set(answer.stopIds),
            sampler: Sampler(answer.sampling), clock: clock)
        while let id = try generation.next() { try goOn(token(id)) }
        return generation.generated
    }
}

func goOn(_ asked: Bool) throws {
    guard asked else { throw CancellationError() }
}
