import Foundation
import SmolshipCore

/// A bundle's chat template, as the export has compiled it.
struct Prompt: Sendable {
    private static let limit = 2 << 20  // bytes, as the export has it
    private let template: Template
    private let fixed: JsonObject

    /// `thinking` is what templates of models that can think ask for; others do not look at it.
    init(_ bundle: ModelBundle, thinking: Bool) throws {
        guard bundle.manifest.file("template.json") != nil else {
            throw Refusal(
                "this bundle's chat template cannot be rendered here", got: "no template.json in the bundle",
                expected: "a bundle of a smolship that writes it, with a template that it can compile",
                todo: "export again; its notes say why a template is not portable")
        }
        let program = try Json.parse(bundle.read("template.json", limit: Prompt.limit))
        let source = bundle.manifest.file("chat_template.jinja")?.sha256
        guard program["source_sha256"]?.stringValue == source else {
            throw Refusal(
                "template.json is of another chat template", got: program["source_sha256"]?.stringValue,
                expected: source, todo: "export the bundle again")
        }
        template = try Template(program)
        let special = bundle.manifest.generation.specialTokens.sorted { $0.key < $1.key }
        fixed = JsonObject(
            special.map { ($0.key, Json.string($0.value)) } + [
                ("tools", .null), ("documents", .null), ("add_generation_prompt", .bool(true)),
                ("enable_thinking", .bool(thinking)),
            ])
    }

    /// The text of a conversation up to where the answer begins.
    func rendering(_ messages: [Message]) throws -> String {
        var variables = fixed
        variables["messages"] = .array(
            messages.map { ["role": .string($0.role.rawValue), "content": .string($0.content)] }.map(Json.object))
        return try template.render(variables)
    }
}
