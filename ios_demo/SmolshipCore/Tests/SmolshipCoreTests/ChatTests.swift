import XCTest

@testable import SmolshipCore

final class ChatTests: XCTestCase {
    func testVectors() throws {
        var programs: [String: Json] = [:]
        for one in try Vectors.cases("chat", least: 10) {
            let program = one["program"]!
            if let hash = program["source_sha256"] { programs[hash.text] = program }
            try run(one, program.stringValue.map { programs[$0]! } ?? program)
        }
    }

    private func run(_ one: Json, _ program: Json) throws {
        let name = one["name"]!.text
        let template = try Template(program)
        var given: JsonObject = ["add_generation_prompt": .bool(true), "tools": .null, "documents": .null]
        for (key, value) in one["special_tokens"]!.objectValue! { given[key] = value }
        for (key, value) in one["variables"]!.objectValue! { given[key] = value }
        let engine = Says([], vocab: 257, capacity: one["capacity"]!.intValue!, forgets: one["forgets"]?.intValue)
        let chat = Chat(
            engine: engine, tokenizer: Bytes(), stopIds: Set(one["stops"]!.ints),
            messages: one["system"]?.stringValue.map { [Message(.system, $0)] } ?? []
        ) { messages in
            given["messages"] = .array(messages.map(self.json))
            return try template.render(given, date: one["date"]!.text)
        }
        for (i, turn) in one["turns"]!.arrayValue!.enumerated() {
            let at = "\(name), turn \(i)"
            if turn["reset"] == .bool(true) { chat.reset() }
            engine.ids = turn["answer_ids"]!.ints
            let before = chat.messages
            var (answer, ending, tokens) = ("", Ending?.none, 0)
            let refused = refusal {
                ending = try chat.ask(turn["text"]!.text, maxTokens: turn["max_tokens"]?.intValue) { piece in
                    answer += piece
                    tokens += 1
                    return tokens != turn["breaks_after"]?.intValue
                }
            }
            if turn["error"] == .bool(true) {
                XCTAssertNotNil(refused, at)
                XCTAssertEqual(chat.messages, before, at)
            } else {
                XCTAssertNil(refused, at)
                XCTAssertEqual(ending?.end.rawValue, turn["end"]!.text, at)
                sameText(chat.messages.last?.content ?? "", turn["answer"]!.text, at)
            }
            XCTAssertEqual(engine.takeFed(), one["fed"]!.arrayValue![i].ints, at)
            XCTAssertEqual(chat.reused, one["reused"]!.ints[i], at)
        }
        XCTAssertEqual(.array(chat.messages.map(json)), one["messages"]!, name)
    }

    private func json(_ message: Message) -> Json {
        .object(["role": .string(message.role.rawValue), "content": .string(message.content)])
    }

    private func chat(_ engine: Says, stopIds: Set<Int> = [256]) -> Chat {
        Chat(engine: engine, tokenizer: Bytes(), stopIds: stopIds) { $0.map { "[\($0.content)]" }.joined() }
    }

    func testLogitsThatAreNoNumbersKeepWhatCame() throws {
        let engine = Says([65, 66, nil], vocab: 257, capacity: 50)
        let chat = chat(engine)
        XCTAssertNotNil(refusal { _ = try chat.ask("hi") { _ in true } })
        XCTAssertEqual(chat.messages, [Message(.user, "hi"), Message(.assistant, "AB")])
    }

    func testAnAnswerWithoutATokenLeavesNoTrace() throws {
        let engine = Says([nil], vocab: 257, capacity: 50)
        let chat = chat(engine)
        XCTAssertNotNil(refusal { _ = try chat.ask("hi") { _ in true } })
        XCTAssertEqual(chat.messages, [])
        engine.ids = [65, 256]
        XCTAssertEqual(try chat.ask("hi") { _ in true }.end, .stop)
        XCTAssertEqual(chat.messages.count, 2)
    }

    func testThePrefillIsBrokenOffBetweenChunks() throws {
        let engine = Says([1, 1, 65, 256], vocab: 257, capacity: 50, chunk: 2)
        let chat = chat(engine)
        XCTAssertEqual(try chat.ask("hi") { _ in false }.end, .interrupted)
        XCTAssertEqual(engine.takeFed(), Array("[h".utf8).map(Int.init))
        XCTAssertEqual(chat.messages, [])
        engine.ids = [1, 65, 256]
        XCTAssertEqual(try chat.ask("hi") { _ in true }.end, .stop)
        XCTAssertEqual(chat.reused, 2)
    }

    func testACharacterThatWasBrokenOff() throws {
        let engine = Says([0xC3, 0xA9, 0xC3], vocab: 257, capacity: 50)
        let chat = chat(engine)
        var pieces: [String] = []
        let ending = try chat.ask("", maxTokens: 3) { piece in
            pieces.append(piece)
            return true
        }
        XCTAssertEqual(ending.end, .maxTokens)
        XCTAssertEqual(pieces, ["", "é", "", "\u{FFFD}"])
        XCTAssertEqual(chat.messages.last, Message(.assistant, "é\u{FFFD}"))
    }

    func testAConversationGoesOn() throws {
        let engine = Says([65, 256], vocab: 257, capacity: 50)
        let chat = Chat(
            engine: engine, tokenizer: Bytes(), stopIds: [256],
            messages: [Message(.system, "s"), Message(.user, "u"), Message(.assistant, "a")]
        ) { $0.map(\.content).joined(separator: ",") }
        _ = try chat.ask("v") { _ in true }
        XCTAssertEqual(engine.takeFed(), "s,u,a,v".utf8.map(Int.init) + [65])
        chat.reset()
        XCTAssertEqual(chat.messages, [Message(.system, "s")])
    }
}

/// Remembers what it was given and says what it is told to.
private final class Speaker: TextEngine {
    let capacity = 100
    var (given, answers, resets) = ([String](), [[String]](), 0)
    var end = End.stop
    var fails = false

    func generate(_ text: String, maxTokens: Int?, sampling: Sampling, sink: (String) -> Bool) throws -> Ending {
        given.append(text)
        for piece in answers.removeFirst() where !sink(piece) { return Ending(end: .interrupted) }
        if fails { throw Refusal("the engine fails") }
        return Ending(end: end)
    }

    func reset() { resets += 1 }
    func close() {}
}

final class TextChatTests: XCTestCase {
    private let engine = Speaker()
    private lazy var chat = TextChat(engine: engine) { messages in
        messages.map { "[\($0.role.rawValue)]\($0.content)</>" }.joined() + "[assistant]"
    }

    private func ask(_ text: String, _ answer: [String], stopAfter: Int = .max) throws -> End {
        engine.answers = [answer]
        var count = 0
        return try chat.ask(text) { _ in
            count += 1
            return count < stopAfter
        }.end
    }

    func testOnlyTheRestOfThePromptIsFed() throws {
        XCTAssertEqual(try ask("a", ["x", "y"]), .stop)
        XCTAssertEqual(try ask("b", ["z"]), .stop)
        XCTAssertEqual(engine.given, ["[user]a</>[assistant]", "</>[user]b</>[assistant]"])
        XCTAssertEqual(engine.resets, 0)
        XCTAssertEqual(chat.reused, "[user]a</>[assistant]xy".count)
        XCTAssertEqual(chat.messages.map(\.content), ["a", "xy", "b", "z"])
    }

    func testItBeginsAnewWhereTheTextParts() throws {
        _ = try ask("a", ["x"])
        chat.reset()
        _ = try ask("b", ["x"])
        XCTAssertEqual(engine.resets, 1)
        XCTAssertEqual(engine.given.last, "[user]b</>[assistant]")
        XCTAssertEqual(chat.reused, 0)
    }

    /// é as one code point and as two are the same to Swift's strings, and not to a tokenizer.
    func testTextsAreComparedByCodePoints() throws {
        _ = try ask("a", ["\u{E9}"])
        chat.reset()
        _ = try ask("a", ["e\u{301}"])
        _ = try ask("b", ["x"])
        XCTAssertEqual(engine.given.last, "</>[user]b</>[assistant]")
    }

    func testBrokenOffOrFullItBeginsAnew() throws {
        XCTAssertEqual(try ask("a", ["x", "y"], stopAfter: 1), .interrupted)
        XCTAssertEqual(chat.messages.map(\.content), ["a", "x"])
        _ = try ask("b", ["z"])
        XCTAssertEqual(engine.resets, 1)
        XCTAssertEqual(engine.given.last, "[user]a</>[assistant]x</>[user]b</>[assistant]")
        engine.end = .context
        _ = try ask("c", ["z"])
        _ = try ask("d", ["z"])
        XCTAssertEqual(engine.resets, 2)
    }

    func testAnEngineThatFails() throws {
        engine.fails = true
        XCTAssertNotNil(refusal { _ = try ask("a", []) })
        XCTAssertEqual(chat.messages, [])
        XCTAssertNotNil(refusal { _ = try ask("a", ["x"]) })
        XCTAssertEqual(chat.messages.map(\.content), ["a", "x"])
        XCTAssertEqual(engine.resets, 1)
    }
}
