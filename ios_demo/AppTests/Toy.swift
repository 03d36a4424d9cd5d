import CoreML
import Foundation
import SmolshipCore
import Tokenizers

/// A model that answers as its prompt asks. Tokens 0 to 255 are bytes, 256 begins a message, 257 ends it. It keeps what
/// it was fed by position, as a cache does, so that a wrong position shows in what it says.
final class Toy: ToyPackage, @unchecked Sendable {
    let functions: [String: Int]
    let vocab: Int
    private let lock = NSLock()
    private var held: [Int] = []
    private var log: [String] = []

    init(chunk: Int = 8, decode: Int = 1, vocab: Int = 300) {
        (functions, self.vocab) = (["prefill": chunk, "decode": decode], vocab)
    }

    /// The calls since the last look, as function@position.
    func takeCalls() -> [String] {
        lock.withLock {
            defer { log = [] }
            return log
        }
    }

    func run(_ function: String, _ ids: [Int32], at position: Int32) throws -> [Float16] {
        lock.withLock {
            log.append("\(function)@\(position)")
            held = Array(held.prefix(Int(position)))
            held += ids.map(Int.init)
            var logits = [Float16](repeating: 0, count: vocab)
            logits[Toy.next(held)] = 1
            return logits
        }
    }

    /// What follows: the answer is "é🙂 " and the number of messages before it, or, where the text has "long" in it, many
    /// an "a".
    static func next(_ ids: [Int]) -> Int {
        guard let start = ids.lastIndex(of: 256), let line = ids[start...].firstIndex(of: 10) else { return 257 }
        let said = ids.count - line - 1
        let slow = String(decoding: ids.filter { $0 < 256 }.map(UInt8.init), as: UTF8.self).contains("long")
        if slow { usleep(10_000) }
        let text = Array((slow ? String(repeating: "a", count: 400) : "é🙂 \(ids.filter { $0 == 257 }.count)").utf8)
        return said < text.count ? Int(text[said]) : 257
    }
}

/// The toy's tokenizer, which spells bytes as byte-level vocabularies do.
struct ToyTokens: Tokenizers.Tokenizer {
    func encode(text: String, addSpecialTokens: Bool) -> [Int] {
        var rest = text[...]
        var ids: [Int] = []
        while !rest.isEmpty {
            if rest.hasPrefix("<|start|>") {
                ids.append(256)
                rest = rest.dropFirst(9)
            } else if rest.hasPrefix("<|end|>") {
                ids.append(257)
                rest = rest.dropFirst(7)
            } else {
                ids += rest.removeFirst().utf8.map(Int.init)
            }
        }
        return ids
    }

    func convertIdToToken(_ id: Int) -> String? {
        switch id {
        case 256: "<|start|>"
        case 257: "<|end|>"
        case 0...255: ToyTokens.spelled[id]
        default: nil
        }
    }

    /// GPT-2's own way to count: bytes that are printable in Latin-1 first, the others behind U+0100.
    private static let spelled: [String] = {
        var others: UInt32 = 0
        return (0..<256).map { byte in
            let plain = (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
            defer { if !plain { others += 1 } }
            return String(Unicode.Scalar(plain ? UInt32(byte) : 256 + others)!)
        }
    }()
}

/// A bundle of the toy in a new folder below Documents.
func toyBundle(
    _ name: String, targets: [String] = ["coreml", "executorch"], template: Bool = true, layers: Int = 2
) throws -> ModelBundle {
    let template = template ? ["chat_template.jinja": "toy", "template.json": try program()] : [:]
    let files = template.merging([
        "tokenizer.json": """
        {"decoder": {"type": "ByteLevel"},
         "added_tokens": [{"id": 256, "special": true}, {"id": 257, "special": true}]}
        """,
        "coreml/model.mlpackage/Data/weights": String(repeating: "w", count: 5000), "executorch/model.pte": "program",
    ]) { $1 }
    let root = URL.documentsDirectory.appending(path: name)
    for (path, text) in files {
        let url = root.appending(path: path)
        try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: url)
    }
    let vectors = try Json.parse(Data(contentsOf: URL(filePath: "../tests/vectors/apps/manifest.json")))
    var manifest = vectors.arrayValue![0]["manifest"]!.objectValue!
    var generation = manifest["generation"]!.objectValue!
    generation["ends"] = try Json.parse(Array(#"[{"id": 257, "text": "<|end|>", "origins": ["config.json"]}]"#.utf8))
    manifest["generation"] = .object(generation)
    var model = manifest["model"]!.objectValue!
    model["layers"] = .int(layers)
    manifest["model"] = .object(model)
    var entries = JsonObject()
    for name in targets {
        let file = name == "coreml" ? "model.mlpackage" : "model.pte"
        let info: JsonObject = ["file": .string(file), "context": .int(512), "chunk": .int(8)]
        let entry: JsonObject = [
            "target": .string(name), "engine": .string(name), "folder": .string(name), "info": .object(info),
        ]
        entries[name] = .object(entry)
    }
    manifest["targets"] = .object(entries)
    var listed = JsonObject()
    for (path, text) in files.sorted(by: { $0.key < $1.key }) {
        let file: JsonObject = ["size": .int(text.utf8.count), "sha256": .string(Sha256.hex(Array(text.utf8)))]
        listed[path] = .object(file)
    }
    manifest["files"] = .object(listed)
    try Data(Json.object(manifest).bytes()).write(to: root.appending(path: Manifest.name))
    return try ModelBundle(root)
}

/// `{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}<|start|>assistant\n`, compiled.
private func program() throws -> String {
    func part(_ name: String) -> String {
        #"{"node": "Getattr", "line": 1, "value": {"node": "Name", "line": 1, "name": "m", "ctx": "load"}, "attr": "\#(name)", "ctx": "load"}"#
    }
    func data(_ text: String) -> String { #"{"node": "TemplateData", "line": 1, "data": "\#(text)"}"# }
    let message = [data("<|start|>"), part("role"), data(#"\n"#), part("content"), data(#"<|end|>\n"#)].joined(
        separator: ",")
    return """
        {"schema": 1, "source_sha256": "\(Sha256.hex(Array("toy".utf8)))", "body": [
        {"node": "For", "line": 1, "target": {"node": "Name", "line": 1, "name": "m", "ctx": "store"},
         "iter": {"node": "Name", "line": 1, "name": "messages", "ctx": "load"},
         "body": [{"node": "Output", "line": 1, "nodes": [\(message)]}], "else_": [], "test": null, "recursive": false},
        {"node": "Output", "line": 1, "nodes": [\(data(#"<|start|>assistant\n"#))]}]}
        """
}
