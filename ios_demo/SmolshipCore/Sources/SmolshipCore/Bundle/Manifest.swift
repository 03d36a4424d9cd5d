/// manifest.json: what a bundle holds, and the size and SHA-256 of each of its files. Read as untrusted input.
public struct Manifest: Sendable {
    public static let name = "manifest.json"
    public static let schema = 2
    static let limit = 4 << 20  // bytes; what is made of them takes many times as many

    public let model: ModelFacts
    public let generation: GenerationFacts
    /// Tokens that the cache holds.
    public let context: Int
    public let quantization: Quantization
    /// Names the set of weights.
    public let weightsDigest: String
    /// Of the set, that one decoded token reads.
    public let weightsBytes: Int
    /// By folder, in the file's order.
    public let targets: [TargetEntry]
    /// In the file's order.
    public let files: [ListedFile]

    /// Bytes of all files; the most that a number can say where they are more.
    public var bytes: Int {
        files.reduce(0) { sum, file in
            let (next, over) = sum.addingReportingOverflow(max(file.size, 0))
            return over ? Int.max : next
        }
    }

    public func file(_ path: String) -> ListedFile? {
        files.first { ExactString($0.path) == ExactString(path) }
    }

    public func target(_ name: String) -> TargetEntry? {
        targets.first { ExactString($0.name) == ExactString(name) }
    }

    /// One SHA-256 for the files of an artifact, as results state it: of the list, which `checkFiles` holds against the
    /// files.
    public func artifactDigest(_ target: TargetEntry) -> String {
        let folder = target.folder + "/"
        let listed = files.filter { $0.path.utf8.starts(with: folder.utf8) }
            .map { (String($0.path.unicodeScalars.dropFirst(folder.unicodeScalars.count)), $0.sha256) }
        var found = listed.filter { $0.0.utf8.starts(with: "\(target.file)/".utf8) }
        if found.isEmpty {  // a file, with those that its name begins
            found = listed.filter { name, _ in
                let rest = name.utf8.dropFirst(target.file.utf8.count)
                return name.utf8.starts(with: target.file.utf8) && !rest.contains(UInt8(ascii: "/"))
            }
        }
        return Sha256.hex(pythonJson(.object(JsonObject(found.map { ($0.0, .string($0.1)) })), spaces: true).utf8)
    }

    /// Throws Refusal where it is malformed or leads outside of the bundle. Links on the way are `ModelBundle`'s to look at.
    public init(_ bytes: some Collection<UInt8>) throws {
        let json = try parseObject(bytes, Manifest.name, limit: Manifest.limit)
        guard json["schema"] == .int(Manifest.schema) else {
            throw Refusal(
                "a bundle of another version", got: "schema \(shown(json["schema"]))", expected: Manifest.schema,
                todo: "export it again with this smolship")
        }
        let record = try Record(
            json, Manifest.name,
            keys: [
                "model", "generation", "context", "quantization", "weights_digest", "weights_bytes", "targets", "tools",
                "steps", "files", "schema",
            ])
        model = try ModelFacts(record["model"], Manifest.name)
        generation = try GenerationFacts(record["generation"], Manifest.name, vocab: model.vocab)
        context = try record.int("context", in: 1...1 << 24)
        quantization = try Quantization(record["quantization"], Manifest.name)
        weightsDigest = try record.string("weights_digest")
        weightsBytes = try record.int("weights_bytes")
        targets = try record.dictionary("targets", { ($0, $1) }).map { name, found in
            try TargetEntry(name, found.0, Manifest.name, at: found.1)
        }
        _ = try record.dictionary("tools") { value, _ in value }
        _ = try record.dictionary("steps") { try StepCost.check($0, Manifest.name, at: $1) }
        files = try record.dictionary("files", { ($0, $1) }).map { path, found in
            try ListedFile(path, found.0, Manifest.name, at: found.1)
        }
    }
}

/// A file as the manifest lists it.
public struct ListedFile: Equatable, Sendable {
    /// Names joined by slashes, relative to the bundle.
    public let path: String
    public let size: Int
    /// In lower-case hexadecimal.
    public let sha256: String

    init(_ path: String, _ json: Json, _ file: String, at: String) throws {
        let record = try Record(json, file, at: at)
        self.path = try relative(path, "\(file): a file's name")
        size = try record.int("size")
        sha256 = try record.string("sha256")
    }
}

/// How the one set of weights is held.
public struct Quantization: Equatable, Sendable {
    public let name: String
    /// Bits.
    public let linear: Int
    public let embedding: Int
    public let head: Int
    public let group: Int
    /// Of the parameters of the layers' linears.
    public let shareAt4Bits: Double
    public let notes: [String]
    public let lifted: Int

    init(_ json: Json?, _ file: String) throws {
        let record = try Record(json, file, at: "quantization")
        name = try record.string("name")
        linear = try record.int("linear")
        embedding = try record.int("embedding")
        head = try record.int("head")
        group = try record.int("group")
        shareAt4Bits = try record.number("share_at_4_bits")
        notes = try record.strings("notes")
        lifted = try record.int("lifted")
    }
}

/// One artifact of the bundle.
public struct TargetEntry: Equatable, Sendable {
    /// Its key in the manifest.
    public let name: String
    /// Format and backend, such as "coreml-gpu".
    public let target: String
    /// What opens it.
    public let engine: String
    /// Where it lies, relative to the bundle.
    public let folder: String
    /// The artifact, relative to `folder`.
    public let file: String
    /// What the engine is opened with: at least `file`.
    public let info: JsonObject
    /// Names its set of weights, where it does not hold the bundle's.
    public let weightsDigest: String?
    /// Weight bytes that one decoded token reads; nil where the bundle does not say.
    public let bytesPerToken: Int?

    init(_ name: String, _ json: Json, _ manifest: String, at: String) throws {
        let record = try Record(json, manifest, at: at, keys: ["target", "engine", "folder", "info"])
        let info = try Record(record["info"], manifest, at: record.path("info"))
        self.name = try plainName(name, "\(manifest): a target's name")
        target = try record.string("target")
        engine = try record.string("engine")
        folder = try relative(try record.string("folder"), "\(manifest): a target's folder")
        file = try relative(try info.string("file"), "\(manifest): a target's file")
        let own = try info.optional("weights") { try Record(info[$0], manifest, at: info.path($0)) }
        weightsDigest = try own?.string("digest")
        _ = try own?.dictionary("rerounded") { value, at in
            guard value.intValue != nil else {
                throw Record.wrong("\(manifest): \(at)", value, "a whole number", record.todo)
            }
        }
        bytesPerToken = info["weight_bytes_per_token"]?.intValue.flatMap { $0 > 0 ? $0 : nil }
        self.info = JsonObject(info.object.filter { !["weights", "weight_bytes_per_token"].contains($0.0) })
    }
}

enum StepCost {
    static func check(_ json: Json, _ file: String, at: String) throws {
        let record = try Record(json, file, at: at)
        _ = try record.number("seconds")
        _ = try record.optional("peak_bytes") { try record.int($0) }
        _ = try record.optional("run", record.string)
        _ = try record.optional("parts") { key in
            try record.dictionary(key) { value, at in
                guard Record.finite(value) != nil else {
                    throw Record.wrong("\(file): \(at)", value, "a finite number", record.todo)
                }
            }
        }
    }
}
