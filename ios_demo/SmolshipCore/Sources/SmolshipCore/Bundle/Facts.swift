/// What the manifest says of the model.
public struct ModelFacts: Equatable, Sendable {
    /// A Hub id, or the name of a folder or file.
    public let source: String
    public let revision: String?
    public let architecture: String
    public let layers: Int
    public let hidden: Int
    /// These three are nil where layers differ.
    public let heads: Int?
    public let kvHeads: Int?
    public let headDim: Int?
    public let vocab: Int
    public let parameters: Int
    public let checkpoint: String?

    init(_ json: Json?, _ file: String) throws {
        let record = try Record(json, file, at: "model")
        source = try record.string("source")
        revision = try record.optional("revision", record.string)
        architecture = try record.string("architecture")
        layers = try record.int("layers")
        hidden = try record.int("hidden")
        heads = try record.optional("heads") { try record.int($0) }
        kvHeads = try record.optional("kv_heads") { try record.int($0) }
        headDim = try record.optional("head_dim") { try record.int($0) }
        vocab = try record.int("vocab", in: 1...1 << 24)
        parameters = try record.int("parameters")
        checkpoint = try record.optional("checkpoint", record.string)
    }
}

/// A token that ends an answer. `text` is empty where the tokenizer does not know the id; `origins` are what names it.
public struct EndToken: Equatable, Sendable {
    public let id: Int
    public let text: String
    public let origins: [String]
}

/// What the model's files say about generating with it.
public struct GenerationFacts: Equatable, Sendable {
    /// Every token that ends an answer.
    public let ends: [EndToken]
    public let bos: Int?
    public let pad: Int?
    /// The tokenizer puts `bos` in front of a raw text.
    public let addsBos: Bool
    /// The sampling that the model's makers recommend; greedy where they say nothing.
    public let sampling: Sampling
    /// What the chat template sees as bos_token and so on.
    public let specialTokens: [String: String]
    /// Where the bundle's chat template comes from; nil where it has none.
    public let template: String?

    public var stopIds: Set<Int> { Set(ends.map(\.id)) }

    private static let roles = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]

    init(_ json: Json?, _ file: String, vocab: Int) throws {
        let keys = ["ends", "bos", "pad", "adds_bos", "sampling", "special_tokens", "template"]
        let record = try Record(json, file, at: "generation", keys: keys)
        let ids = 0...vocab - 1
        ends = try record.array("ends") { value, at in
            let end = try Record(value, file, at: at, keys: ["id", "text", "origins"])
            return EndToken(
                id: try end.int("id", in: ids), text: try end.string("text"), origins: try end.strings("origins"))
        }
        guard ends.count <= 512 else { throw record.wrong("ends", "up to 512") }
        bos = try record.optional("bos") { try record.int($0, in: ids) }
        pad = try record.optional("pad") { try record.int($0, in: ids) }
        addsBos = try record.bool("adds_bos")
        sampling = try GenerationFacts.recommended(record["sampling"], file)
        let special = try record.dictionary("special_tokens") { value, at in
            guard let text = value.stringValue else {
                throw Record.wrong("\(file): \(at)", value, "a text", record.todo)
            }
            return text
        }
        guard special.allSatisfy({ GenerationFacts.roles.contains($0.key) }) else {
            throw record.wrong("special_tokens", "only " + GenerationFacts.roles.joined(separator: ", "))
        }
        specialTokens = Dictionary(uniqueKeysWithValues: special.map { ($0.key, $0.value) })
        template = try record.optional("template", record.string)
    }

    /// As transformers reads it. Without `do_sample` it is greedy.
    private static func recommended(_ json: Json?, _ file: String) throws -> Sampling {
        let keys = ["do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"]
        let record = try Record(json, file, at: "generation.sampling", keys: keys)
        let temperature = try record.number("temperature")
        return try Sampling(
            temperature: try record.bool("do_sample") ? temperature : 0, topP: try record.number("top_p"),
            topK: try record.int("top_k"), minP: try record.number("min_p"),
            repetitionPenalty: try record.number("repetition_penalty"))
    }
}
