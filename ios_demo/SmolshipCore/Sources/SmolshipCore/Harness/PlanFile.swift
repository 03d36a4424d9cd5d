extension Plan {
    static let schema = 1
    private static let limit = 1 << 29  // bytes of a file
    private static let purposes = ["parity", "quick parity", "load", "bench", "generate"]
    private static let keys = [
        "purpose", "target", "engine", "info", "threads", "arithmetic", "texts", "calls", "layers", "cache", "timing",
        "loads", "answer", "strings", "schema",
    ]

    /// The plan of a file. Throws Refusal for what is malformed, or cannot be done.
    public init(_ bytes: some Collection<UInt8>) throws {
        let record = try Plan.record(try parseObject(bytes, "plan", limit: Plan.limit), keys: Plan.keys)
        let schema = try record.int("schema")
        guard schema == Plan.schema else {
            throw Refusal("a plan of another version", got: schema, expected: Plan.schema)
        }
        let purpose = try record.string("purpose")
        guard Plan.purposes.contains(purpose) else {
            throw record.wrong("purpose", "one of " + Plan.purposes.joined(separator: ", "))
        }
        guard let info = record["info"]?.objectValue else { throw record.wrong("info", "an object") }
        try self.init(
            purpose: purpose, target: try record.string("target"), engine: try record.string("engine"), info: info,
            threads: try record.int("threads"), arithmetic: try record.string("arithmetic"),
            texts: try record.array("texts", Plan.text), calls: try record.array("calls", Plan.call),
            layers: try record.int("layers"), cache: try record.array("cache") { try blocks($0, "plan", at: $1) },
            timing: try record.optional("timing") { try Plan.timing(record[$0], $0) }, loads: try record.bool("loads"),
            answer: try record.optional("answer") { try Plan.answer(record[$0], $0) },
            strings: try record.optional("strings") { try record.strings($0) })
    }

    private static func record(_ json: Json?, at: String = "", keys: [String]) throws -> Record {
        try Record(json, "plan", at: at, keys: keys, todo: "make it again")
    }

    private static func text(_ json: Json, at: String) throws -> PlanText {
        let record = try record(json, at: at, keys: ["ids", "at", "wanted"])
        guard let wanted = record["wanted"] else { throw record.wrong("wanted", "int32 in 2 dimensions") }
        return try PlanText(
            ids: try record.ids("ids"), at: try record.ids("at"),
            wanted: try table(wanted, "plan", at: record.path("wanted")))
    }

    private static func call(_ json: Json, at: String) throws -> Call {
        let keys = ["stage", "text", "start", "stop", "look", "rewind", "greedy", "exact", "preset"]
        let record = try record(json, at: at, keys: keys)
        guard let look = Call.Look(rawValue: try record.string("look")) else {
            throw record.wrong("look", "one of none, last, all")
        }
        return Call(
            stage: try record.string("stage"), text: try record.int("text"), start: try record.int("start"),
            stop: try record.int("stop"), look: look, rewind: try record.optional("rewind") { try record.int($0) },
            greedy: try record.bool("greedy"), exact: try record.bool("exact"),
            preset: try record.optional("preset") { try record.int($0) })
    }

    private static func timing(_ json: Json?, _ at: String) throws -> Timing {
        let record = try record(json, at: at, keys: ["prompts", "depths", "tokens", "repeats", "warmups", "sustained"])
        return Timing(
            prompts: try record.ints("prompts"), depths: try record.ints("depths"), tokens: try record.int("tokens"),
            repeats: try record.int("repeats"), warmups: try record.int("warmups"),
            sustained: try record.int("sustained"))
    }

    private static func answer(_ json: Json?, _ at: String) throws -> Answer {
        let record = try record(json, at: at, keys: ["max_tokens", "stop_ids", "sampling"])
        let keys = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"]
        let sampling = try Plan.record(record["sampling"], at: record.path("sampling"), keys: keys)
        return Answer(
            maxTokens: try record.int("max_tokens"), stopIds: try record.ids("stop_ids"),
            sampling: try Sampling(
                temperature: try sampling.number("temperature"), topP: try sampling.number("top_p"),
                topK: try sampling.int("top_k"), minP: try sampling.number("min_p"),
                repetitionPenalty: try sampling.number("repetition_penalty"),
                seed: try sampling.optional("seed") { UInt64(try sampling.int($0, in: 0...Int.max)) }))
    }

    /// What the digest is taken of, keys sorted.
    var json: Json {
        var object: JsonObject = [
            "purpose": .string(purpose), "target": .string(target), "engine": .string(engine), "info": .object(info),
            "threads": .int(threads), "arithmetic": .string(arithmetic), "texts": .array(texts.map(\.json)),
            "calls": .array(calls.map(\.json)), "layers": .int(layers),
            "cache": .array(cache.map { arrayJson("float32", $0.shape, $0.bytes) }),
            "timing": nullable(timing, \.json), "loads": .bool(loads), "schema": .int(Plan.schema),
        ]
        object["answer"] = answer.map(\.json)
        object["strings"] = strings.map { .array($0.map(Json.string)) }
        return .object(object)
    }
}

extension Record {
    /// A list of whole numbers of 32 bits.
    fileprivate func ids(_ key: String) throws -> [Int] {
        let found = try ints(key)
        guard found.allSatisfy({ Int32(exactly: $0) != nil }) else { throw wrong(key, "int32 in 1 dimension") }
        return found
    }
}

extension PlanText {
    fileprivate var json: Json {
        .object(["ids": .array(ids.map(Json.int)), "at": .array(at.map(Json.int)), "wanted": tableJson(wanted)])
    }
}

extension Call {
    fileprivate var json: Json {
        .object([
            "stage": .string(stage), "text": .int(text), "start": .int(start), "stop": .int(stop),
            "look": .string(look.rawValue), "rewind": nullable(rewind, Json.int), "greedy": .bool(greedy),
            "exact": .bool(exact), "preset": nullable(preset, Json.int),
        ])
    }
}

extension Timing {
    fileprivate var json: Json {
        .object([
            "prompts": .array(prompts.map(Json.int)), "depths": .array(depths.map(Json.int)), "tokens": .int(tokens),
            "repeats": .int(repeats), "warmups": .int(warmups), "sustained": .int(sustained),
        ])
    }
}

extension Answer {
    fileprivate var json: Json {
        let how: JsonObject = [
            "temperature": .float(sampling.temperature), "top_p": .float(sampling.topP), "top_k": .int(sampling.topK),
            "min_p": .float(sampling.minP), "repetition_penalty": .float(sampling.repetitionPenalty),
            "seed": nullable(sampling.seed) { .int(Int($0)) },
        ]
        return .object([
            "max_tokens": .int(maxTokens), "stop_ids": .array(stopIds.map(Json.int)), "sampling": .object(how),
        ])
    }
}
