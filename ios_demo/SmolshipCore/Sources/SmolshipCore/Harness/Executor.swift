import Foundation

/// Has an engine do what a plan asks.
public struct Executor {
    public let plan: Plan
    public let machine: Machine
    private let clock: TimeSource
    private let memory: () -> Memory?

    /// `memory` reads that of this process. Throws Refusal for a plan that no app's engine can execute.
    public init(
        _ plan: Plan, machine: Machine, clock: @escaping TimeSource = uptime, memory: @escaping () -> Memory? = { nil }
    ) throws {
        (self.plan, self.machine, self.clock, self.memory) = (plan, machine, clock, memory)
        guard plan.arithmetic.isEmpty || machine.arithmetics.contains(plan.arithmetic) else {
            throw Refusal(
                "the engine does not compute in that arithmetic", got: plan.arithmetic,
                expected: machine.arithmetics.isEmpty ? "its own" : machine.arithmetics.sorted().joined(separator: ", "))
        }
        guard plan.calls.allSatisfy({ $0.preset == nil }) else {
            throw Refusal(
                "this engine does not let its cache be written", got: "a call that presets it",
                todo: "make a plan for an engine whose traits have no presets")
        }
    }

    /// Opens the engine, once more where the plan asks for loads, executes and closes it. `progress` is told the stage;
    /// `token` each token of an answer. Throws Refusal where the engine cannot do it, CancellationError where one of
    /// both returns false.
    public func run(
        open: () throws -> any TokenEngine, progress: OnProgress = { _, _, _ in true },
        token: (Int) -> Bool = { _ in true }
    ) throws -> PlanResult {
        let before = memory()
        func told(_ what: String, _ done: Int, _ total: Int) throws {
            guard progress(what, done, total) else { throw CancellationError() }
        }
        try told("loading", 0, plan.loads ? 2 : 1)
        let (engine, loads) = plan.loads ? try loaded(open, told) : (try open(), nil)
        defer { engine.close() }
        return try execute(engine, loads, before, told, token)
    }

    /// The engine of the second load, and the times of both; the first token belongs to them, as engines put work off
    /// until then.
    private func loaded(
        _ open: () throws -> any TokenEngine, _ told: (String, Int, Int) throws -> Void
    ) throws -> (any TokenEngine, Loads?) {
        func load() throws -> (any TokenEngine, Double) {
            let start = uptime()
            let engine = try open()
            do {
                _ = try engine.feed([0])
            } catch {
                engine.close()
                throw error
            }
            return (engine, 1000 * (uptime() - start))
        }
        let (first, cold) = try load()
        first.close()
        try told("loading", 1, 2)
        let (engine, warm) = try load()
        try engine.goBack(to: 0)
        return (engine, Loads(coldMs: cold, warmMs: warm))
    }

    private func execute(
        _ engine: any TokenEngine, _ loads: Loads?, _ before: Memory?, _ told: (String, Int, Int) throws -> Void,
        _ token: (Int) -> Bool
    ) throws -> PlanResult {
        guard plan.highest < engine.vocab else {
            throw Refusal("the plan has tokens that the model has not", got: plan.highest, expected: "below \(engine.vocab)")
        }
        let start = uptime()
        var seen: [Seen] = []
        var last: [Float] = []
        for (i, call) in plan.calls.enumerated() {
            try told(call.stage, i, plan.calls.count)
            seen.append(try look(call, engine, &last, told))
        }
        let times = try plan.timing.map { timing in
            try withoutActuallyEscaping(told) { told in
                try Stopwatch(engine: engine, tokens: plan.texts[0].ids, timing: timing, clock: clock, progress: told).times()
            }
        }
        let generated = try plan.answer.map { try answered($0, engine, token) }
        return PlanResult(
            plan: plan, machine: machine, traits: Traits(engine), seconds: uptime() - start, seen: seen, loads: loads,
            times: times, generated: generated, memoryBeforeLoad: before, memory: before == nil ? nil : memory())
    }

    /// A sketch of what a call looks at. `last` are the logits of the call's last position, and before it of the call
    /// before. App engines give a call's last logits alone, so all positions are looked at by single tokens.
    private func look(
        _ call: Call, _ engine: any TokenEngine, _ last: inout [Float], _ told: (String, Int, Int) throws -> Void
    ) throws -> Seen {
        if let place = call.rewind { try engine.goBack(to: place) }
        let text = plan.texts[call.text]
        var seen = Seen(wanted: text.rows(call.looked), exact: call.exact)
        guard call.look == .all else {
            last = try engine.feed(Array(text.ids[call.start..<call.stop]))!
            if call.look == .last { seen.add(last) }
            return seen
        }
        guard call.stop - call.start <= engine.capacity - engine.position else {
            throw Refusal(
                "the prompt is longer than the context", got: "\(call.stop - call.start) tokens after \(engine.position)",
                expected: "at most \(engine.capacity - engine.position)")
        }
        for place in call.start..<call.stop {
            if place > call.start, (place - call.start) % 64 == 0 { try told(call.stage, place - call.start, call.stop - call.start) }
            last = try engine.feed([call.greedy ? largestIndex(last) : text.ids[place]])!
            seen.add(last)
        }
        return seen
    }

    private func answered(_ answer: Answer, _ engine: any TokenEngine, _ token: (Int) -> Bool) throws -> Generated {
        let generation = try Generation(
            engine, prompt: plan.texts[0].ids, maxTokens: answer.maxTokens, stopIds: Set(answer.stopIds),
            sampler: Sampler(answer.sampling), clock: clock)
        while let id = try generation.next() {
            guard token(id) else { throw CancellationError() }
        }
        return generation.generated
    }
}
