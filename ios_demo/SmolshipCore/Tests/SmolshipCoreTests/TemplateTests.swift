import XCTest

@testable import SmolshipCore

/// Chat templates, against what Python renders.
final class TemplateTests: XCTestCase {
    private struct Counts {
        var equal = 0, refused = 0, rare = 0, different = 0, rightly = 0, wrongly = 0
        var renders: Int { equal + refused + different }
    }

    /// All cases of tests/vectors/apps/templates.json.
    func testVectors() throws {
        var (counts, programs, names) = (Counts(), [String: Json](), [String]())
        let cases = try Vectors.cases("templates", least: 833)
        for one in cases {
            var program = one["program"] ?? .null
            if let hash = program.stringValue { program = try XCTUnwrap(programs[hash]) }
            if let hash = program["source_sha256"]?.stringValue { programs[hash] = program }
            let isRare = one["rare"]?.boolValue == true
            let found = program.isNull ? nil : try rendered(program, one["context"], one["date"]?.stringValue)
            guard let expected = one["expected"]?.stringValue else {
                if let found { XCTFail("\(one["name"]!.text) is not refused: \(found.debugDescription)") }
                counts.rightly += found == nil ? 1 : 0
                counts.wrongly += found == nil ? 0 : 1
                continue
            }
            guard let found else {
                names.append(one["name"]!.text)
                if isRare { counts.rare += 1 } else { counts.refused += 1 }
                continue
            }
            sameText(found, expected, one["name"]!.text)
            if found.utf8.elementsEqual(expected.utf8) { counts.equal += 1 } else { counts.different += 1 }
        }
        let percent = 100 * Double(counts.refused) / Double(counts.renders)
        print(
            "templates: \(cases.count) cases, \(counts.equal) equal, \(counts.different) different,",
            "\(counts.refused) refused (\(String(format: "%.1f", percent)) % of those that must render) and \(counts.rare) rare ones,",
            "\(counts.rightly) rightly refused, \(counts.wrongly) wrongly rendered")
        XCTAssertEqual(counts.different, 0)
        XCTAssertEqual(counts.wrongly, 0)
        XCTAssertLessThanOrEqual(percent, 5, "refused: \(names)")
        XCTAssertGreaterThan(counts.equal, 600)
    }

    /// Small templates of all kinds, of tests/vectors/template_kinds.json: none refused that Python renders.
    func testKinds() throws {
        let file = try Json.parse(
            [UInt8](Data(contentsOf: Vectors.folder.deletingLastPathComponent().appending(path: "template_kinds.json")))
        )
        var (texts, errors) = (0, 0)
        for one in try XCTUnwrap(file["cases"]?.arrayValue) {
            let found = try rendered(one["program"]!, file["context"], file["date"]?.stringValue)
            if let expected = one["expected"]?.stringValue {
                sameText(found ?? "(refused)", expected, one["template"]!.text)
                texts += 1
            } else {
                XCTAssertNil(found, one["template"]!.text)
                errors += 1
            }
        }
        print("templates: \(texts) small ones rendered, \(errors) refused as Python does")
        XCTAssertGreaterThan(texts, 400)
        XCTAssertGreaterThan(errors, 100)
    }

    /// The text; nil where it is refused. Any other error fails the test.
    private func rendered(_ program: Json, _ context: Json?, _ date: String?) throws -> String? {
        do {
            return try Template(program).render(try XCTUnwrap(context?.objectValue), date: date)
        } catch is Refusal {
            return nil
        }
    }

    // MARK: Programs made here

    private func node(_ kind: String, _ fields: JsonObject = [:]) -> Json {
        var object: JsonObject = ["node": .string(kind), "line": .int(7)]
        for (name, value) in fields { object[name] = value }
        return .object(object)
    }

    private func name(_ name: String) -> Json { node("Name", ["name": .string(name), "ctx": .string("load")]) }

    private func call(_ function: Json, _ arguments: [Json] = []) -> Json {
        node(
            "Call",
            [
                "value": function, "args": .array(arguments), "kwargs": .array([]), "dyn_args": .null,
                "dyn_kwargs": .null,
            ])
    }

    private func output(_ expression: Json) -> Json { node("Output", ["nodes": .array([expression])]) }

    private func program(_ body: [Json], schema: Int = 1) -> Json {
        .object(["schema": .int(schema), "source_sha256": .string(""), "body": .array(body)])
    }

    /// {% for x in range(count) %}body{% endfor %}
    private func loop(_ count: Int, _ body: [Json]) -> Json {
        let x = node("Name", ["name": .string("x"), "ctx": .string("store")])
        let range = call(name("range"), [node("Const", ["value": .int(count)])])
        return node(
            "For",
            [
                "target": x, "iter": range, "body": .array(body), "else_": .array([]), "test": .null,
                "recursive": .bool(false),
            ])
    }

    /// {% macro f() %}body{% endmacro %}{{ f() }}
    private func macro(_ body: [Json]) -> [Json] {
        [
            node("Macro", ["name": .string("f"), "args": .array([]), "defaults": .array([]), "body": .array(body)]),
            output(call(name("f"))),
        ]
    }

    func testARefusalSaysWhatAndWhere() throws {
        let said = try XCTUnwrap(
            refusal {
                _ = try Template(
                    program([
                        output(
                            call(name("raise_exception"), [node("Const", ["value": .string("Roles must alternate")])]))
                    ])
                ).render([:])
            })
        XCTAssertEqual(said.what, "the chat template refuses these messages")
        XCTAssertEqual(said.got, "Roles must alternate (line 7 of the template)")
        let missing = try XCTUnwrap(refusal { _ = try Template(program([output(call(name("nothing")))])).render([:]) })
        XCTAssertTrue(missing.got?.contains("'nothing' is undefined") == true, missing.description)
    }

    func testProgramsThatAreNone() throws {
        for (body, schema) in [
            ([], 2), ([node("Include", ["template": .null])], 1), ([.int(1)], 1), ([node("Output")], 1),
            ([output(node("Const"))], 1), ([output(node("Const", ["value": .array([])]))], 1),
            ([output(node("Break"))], 1),
            ([node("Break")], 1),
            ([output(node("Name", ["name": .string("x"), "ctx": .string("load"), "more": .null]))], 1),
            ([.object(["node": .string("Break")])], 1), ([node("If", ["test": .string("x"), "body": .array([])])], 1),
            (
                [
                    output(
                        node(
                            "Filter",
                            [
                                "value": name("x"), "name": .string("nope"), "args": .array([]), "kwargs": .array([]),
                                "dyn_args": .null, "dyn_kwargs": .null,
                            ]))
                ], 1
            ),
        ] as [([Json], Int)] {
            XCTAssertNotNil(refusal { _ = try Template(program(body, schema: schema)) }, "\(body)")
        }
        XCTAssertNotNil(refusal { _ = try Template(.null) })
        XCTAssertNotNil(refusal { _ = try Template(.object(["schema": .int(1), "body": .array([]), "more": .null])) })
        var deep = name("x")
        for _ in 0..<1000 { deep = node("Not", ["value": deep]) }
        XCTAssertNotNil(refusal { _ = try Template(program([output(deep)])) })
    }

    func testLimits() throws {
        func refused(_ body: [Json], _ change: (inout TemplateLimits) -> Void) throws -> String {
            var limits = TemplateLimits()
            change(&limits)
            let template = try Template(program(body), limits: limits)
            return try XCTUnwrap(refusal { _ = try template.render([:]) }, "\(body)").description
        }
        let text = node("Output", ["nodes": .array([node("TemplateData", ["data": .string("0123456789")])])])
        XCTAssertEqual(try Template(program([loop(10, [text])])).render([:]).count, 100)
        XCTAssertTrue(try refused([loop(1000, [])]) { $0.steps = 500 }.contains("more than 500 steps"))
        XCTAssertTrue(try refused([loop(10, [text])]) { $0.size = 99 }.contains("more than 99 characters"))
        XCTAssertTrue(try refused(macro([output(call(name("f")))])) { _ in }.contains("calls inside one another"))
        let product = node(
            "Mul", ["left": node("Const", ["value": .string("x")]), "right": node("Const", ["value": .int(1 << 40)])])
        XCTAssertTrue(try refused([output(product)]) { _ in }.contains("too much time or memory"))
        let part = node(
            "Mul", ["left": node("Const", ["value": .string("x")]), "right": node("Const", ["value": .int(1000)])])
        XCTAssertTrue(
            try refused([loop(1000, [node("ExprStmt", ["value": part])])]) { $0.bytes = 100_000 }.contains(
                "100000 bytes"))
    }

    /// A rendering leaves nothing behind, although macros and namespaces refer to themselves.
    func testMemoryIsGivenBack() throws {
        let template = try Template(program(macro([loop(3, [output(name("x"))])])))
        for _ in 0..<50 { XCTAssertEqual(try template.render([:]), "012") }
        weak var kept: Interpreter?
        weak var outside: Activation?
        do {
            let interpreter = Interpreter(limits: TemplateLimits(), clock: try Clock("2025-01-01"))
            let activation = Activation(1, in: nil)
            activation.slots[0] = .object(Macro(MacroCode(), activation, interpreter))
            (kept, outside) = (interpreter, activation)
            _ = try interpreter.run(Compiler.compile(program([])), [:])
        }
        XCTAssertNil(kept)
        XCTAssertNil(outside)
    }

    func testTheClock() throws {
        let now = try Clock("2024-02-29T13:05:09")
        XCTAssertEqual(try now.format("%Y-%m-%d %H:%M:%S %-I%p %j %A"), "2024-02-29 13:05:09 1PM 060 Thursday")
        XCTAssertEqual(try Clock("2021-01-03").format("%G-W%V-%u %U %W"), "2020-W53-7 01 00")
        XCTAssertEqual(try Clock("2020-12-31").format("%G-W%V %a"), "2020-W53 Thu")
        XCTAssertEqual(try Clock("2018-12-31").format("%G-W%V %a"), "2019-W01 Mon")
        for wrong in ["2024-02-30", "2023-02-29", "24-01-01", "2024-13-01", "2024-01-01T25:00:00", "now", "2024-01-0１"]
        {
            XCTAssertNotNil(refusal { _ = try Clock(wrong) }, wrong)
        }
        XCTAssertEqual(try Clock(nil).format("%Y").count, 4)
    }
}
