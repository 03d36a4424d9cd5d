import Foundation

/// What executing a plan gave, and who ran it, in the schema that `smolship` reads.
public struct PlanResult: Sendable {
    public let plan: Plan
    public let machine: Machine
    public let traits: Traits
    public let seconds: Double
    /// A sketch for each of the plan's calls.
    public let seen: [Seen]
    public let loads: Loads?
    public let times: Times?
    public let generated: Generated?
    /// What the tokenizer makes of each of the plan's strings.
    public let strings: [PlanTokens]?
    public let memoryBeforeLoad: Memory?
    public let memory: Memory?

    /// The file's text: one line, sorted keys.
    public var text: String {
        var object: JsonObject = [
            "plan": .string(plan.digest), "artifact": .string(machine.artifact), "purpose": .string(plan.purpose),
            "target": .string(plan.target), "engine": .string(plan.engine), "arithmetic": .string(plan.arithmetic),
            "threads": .int(plan.threads), "traits": traits.json, "waiting": .string(machine.waiting.rawValue),
            "versions": .object(JsonObject(machine.versions.map { ($0.key, Json.string($0.value)) })),
            "system": .string(machine.system), "cpu": nullable(machine.cpu, Json.string), "seconds": .float(seconds),
            "seen": .array(seen.map(\.json)), "cache": .array([]), "nonfinite": .array([]),
            "loads": nullable(loads, \.json), "times": nullable(times, \.json),
            "memory_before_load": nullable(memoryBeforeLoad, \.json), "memory": nullable(memory, \.json),
            "schema": .int(1),
        ]
        object["generated"] = generated.map(\.json)
        object["strings"] = strings.map { .array($0.map(\.json)) }
        return pythonJson(.object(object)) + "\n"
    }

    /// Writes it to a temporary file beside `url`, and renames that.
    public func write(to url: URL) throws {
        let temporary = url.deletingLastPathComponent().appending(path: ".\(url.lastPathComponent).partial")
        discard(temporary)
        defer { discard(temporary) }
        let output = try Output(temporary, name: "the result", new: true)
        try Array(text.utf8).withUnsafeBytes(output.write)
        try output.finish()
        guard rename(temporary.path, url.path) == 0 else {
            throw Refusal("the result cannot be written", got: systemError(), expected: "a place for a file")
        }
    }
}

/// Who executes, and on what.
public struct Machine: Sendable {
    /// How threads wait for one another.
    public enum Waiting: String, Sendable {
        case briefly, asleep, actively
    }

    /// The digest of what is opened: ModelBundle.artifactDigest.
    public var artifact: String
    /// Of the app, the engine, the system's parts, by name.
    public var versions: [String: String]
    public var system: String
    public var cpu: String?
    public var waiting: Waiting
    /// What the engine can compute in besides its own arithmetic, as plans name it.
    public var arithmetics: Set<String>

    public init(
        artifact: String, versions: [String: String], system: String, cpu: String? = nil, waiting: Waiting = .briefly,
        arithmetics: Set<String> = []
    ) {
        (self.artifact, self.versions, self.system, self.cpu) = (artifact, versions, system, cpu)
        (self.waiting, self.arithmetics) = (waiting, arithmetics)
    }
}

/// What a plan must know of the engine that it is made for.
public struct Traits: Equatable, Sendable {
    public let vocab: Int
    public let capacity: Int
    public let chunk: Int?
    public let runtime: String
    /// Whose tokenizer there is, if any.
    public let tokenizer: String?

    init(_ engine: any TokenEngine, tokenizer: String?) {
        (vocab, capacity, chunk, runtime) = (engine.vocab, engine.capacity, engine.chunk, engine.runtime)
        self.tokenizer = tokenizer
    }

    var json: Json {
        var object: JsonObject = [
            "vocab": .int(vocab), "capacity": .int(capacity), "chunk": nullable(chunk, Json.int), "blocks": .array([]),
            "runtime": .string(runtime), "presets": .bool(false), "computes": .null,
        ]
        object["tokenizer"] = tokenizer.map(Json.string)
        return .object(object)
    }
}

/// What a tokenizer makes of a string.
public struct PlanTokens: Equatable, Sendable {
    /// Its ids with nothing around them, and those with what the model wants around a text; nil where there are none.
    public let bare: [Int]?
    public let around: [Int]?
    /// The first of them that there is, as text again.
    public let text: String?

    init(_ string: String, _ tokenizer: any EngineTokenizer) throws {
        bare = try tokenizer.encode(string, special: false)
        around = try tokenizer.encode(string, special: true)
        text = try (bare ?? around).map(tokenizer.decode)
    }

    var json: Json {
        func ids(_ found: [Int]) -> Json { .array(found.map(Json.int)) }
        return .object([
            "bare": nullable(bare, ids), "around": nullable(around, ids), "text": nullable(text, Json.string),
        ])
    }
}

/// Opening the artifact and running one token, and again.
public struct Loads: Equatable, Sendable {
    public let coldMs: Double
    public let warmMs: Double

    /// Whether the system had forgotten the file before, an app cannot say.
    var json: Json {
        .object(["import_ms": .float(0), "cold_ms": .float(coldMs), "warm_ms": .float(warmMs), "dropped": .null])
    }
}

/// Bytes resident now; nil where the system does not say.
public struct Memory: Equatable, Sendable {
    /// Only this process has them: a phone ends it for these.
    public var anonymous: Int?
    /// Pages of mapped files, which the system can drop and read again.
    public var fileBacked: Int?
    /// Of both together, since the process began.
    public var peak: Int?

    public init(anonymous: Int? = nil, fileBacked: Int? = nil, peak: Int? = nil) {
        (self.anonymous, self.fileBacked, self.peak) = (anonymous, fileBacked, peak)
    }

    var json: Json {
        .object([
            "anonymous_bytes": nullable(anonymous, Json.int), "file_backed_bytes": nullable(fileBacked, Json.int),
            "peak_bytes": nullable(peak, Json.int),
        ])
    }
}

extension Generated {
    var json: Json {
        .object([
            "prompt_tokens": .int(promptTokens), "ids": .array(ids.map(Json.int)), "end": .string(end.rawValue),
            "stop_id": nullable(stopId, Json.int), "times": .array(times.map(Json.float)),
        ])
    }
}
