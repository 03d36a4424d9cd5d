import XCTest

@testable import SmolshipCore

final class JsonTests: XCTestCase {
    /// The threads that apps work on have half a megabyte.
    func testTheDeepestOnASmallStack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let text = String(repeating: open, count: 200) + "1" + String(repeating: close, count: 200)
            let done = DispatchSemaphore(value: 0)
            let thread = Thread {
                XCTAssertNotNil(try? Json.parse(text))
                XCTAssertNil(try? Json.parse(open + text + close))
                done.signal()
            }
            thread.stackSize = 512 << 10
            thread.start()
            done.wait()
        }
    }

    func testValuesAreKeptExactly() throws {
        let text =
            #"{"b": [1, 1.0, -0.0, 1e+16, 12345678901234567890123, null, true], "a": {"é": "e\#u{301}", "e\#u{301}": "é"}}"#
        let json = try Json.parse(text)
        XCTAssertEqual(json.objectValue?.keys, ["b", "a"])
        XCTAssertEqual(
            json["b"],
            .array([
                .int(1), .float(1), .float(-0.0), .float(1e16), .bigInt("12345678901234567890123"), .null, .bool(true),
            ]))
        XCTAssertEqual(json["a"]?.objectValue?.count, 2)
        XCTAssertNotEqual(json["a"]?["é"], json["a"]?["e\u{301}"])
        sameText(try json.text(), text, "written again")
        XCTAssertNotEqual(Json.int(1), .float(1))
    }

    func testNumbersAreWrittenAsPythonDoes() {
        for (number, text) in [
            (1.0, "1.0"), (0.1, "0.1"), (1e15, "1000000000000000.0"), (1e16, "1e+16"), (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"), (0.00001, "1e-05"),
            (.leastNonzeroMagnitude, "5e-324"), (-0.0, "-0.0"), (123456789.12345679, "123456789.12345679"),
            (1.2345678901234568e17, "1.2345678901234568e+17"),
            (100, "100.0"), (1e22, "1e+22"), (9007199254740992, "9007199254740992.0"), (.infinity, "inf"),
            (-.infinity, "-inf"), (.nan, "nan"),
        ] as [(Double, String)] {
            XCTAssertEqual(pythonRepr(number), text)
        }
    }

    func testStrings() throws {
        XCTAssertEqual(try Json.parse(#""\ud83d\udc4d\n\u0000\/""#).stringValue, "👍\n\0/")
        XCTAssertEqual(try Json.string("\u{7f}\u{1}\"\\\n\u{2028}é").text(), "\"\u{7f}\\u0001\\\"\\\\\\n\u{2028}é\"")
        XCTAssertEqual(
            try Json.array([.int(1), .object(["a": .array([])])]).text(indent: 1), "[\n 1,\n {\n  \"a\": []\n }\n]")
        XCTAssertThrowsError(try Json.array([.float(.nan)]).text())
    }

    func testWhatIsNotJson() {
        for text in [
            "", " ", "{", "[1,]", "{\"a\":1,}", "[1 2]", "01", "-", "1.", ".5", "+1", "1e", "NaN", "Infinity", "nul",
            "nulll", "1 1", "'a'", "\"a",
            "\"\n\"", #""\x""#, #""\ud800""#, #""\udc00""#, #""\ud800\u0041""#, #""\u12g4""#, #"{"a":1,"a":2}"#,
            "{1:2}", "[1]]", "1e999", "\u{feff}1",
            "[" + String(repeating: "1", count: 5000) + "]", String(repeating: "[", count: 100_000),
        ] {
            XCTAssertThrowsError(try Json.parse(text), text.prefix(40).description)
        }
        XCTAssertThrowsError(try Json.parse([0x22, 0xFF, 0x22]))
        XCTAssertThrowsError(try Json.parse([0x22, 0xED, 0xA0, 0x80, 0x22]))
        XCTAssertThrowsError(try Json.parse("[1,2,3]", limits: JsonLimits(bytes: 3)))
        XCTAssertThrowsError(try Json.parse("[[1]]", limits: JsonLimits(depth: 1)))
    }
}
