import XCTest

@testable import SmolshipCore

final class TextTests: XCTestCase {
    /// Against what Python's json.dumps gives: code points beyond ASCII escaped, keys in the order of code points, floats
    /// by repr.
    func testCanonicalJson() throws {
        for (raw, shortest, spaced) in [
            (
                #"{"\u00e9": 1e+16, "Z": {}, "\u007f\u2028": "\ud83d\ude00\"\\\n\u0001", "\ud83d\ude00": null, "\uffff": true, "b": []}"#,
                #"{"Z":{},"b":[],"\u007f\u2028":"\ud83d\ude00\"\\\n\u0001","\u00e9":1e+16,"\uffff":true,"\ud83d\ude00":null}"#,
                #"{"Z": {}, "b": [], "\u007f\u2028": "\ud83d\ude00\"\\\n\u0001", "\u00e9": 1e+16, "\uffff": true, "\ud83d\ude00": null}"#
            ),
            (
                #"[1.0, -0.0, 1e-05, 1.2345678901234568e+17, 1e+22, 5e-324, 12345678901234567890]"#,
                #"[1.0,-0.0,1e-05,1.2345678901234568e+17,1e+22,5e-324,12345678901234567890]"#,
                #"[1.0, -0.0, 1e-05, 1.2345678901234568e+17, 1e+22, 5e-324, 12345678901234567890]"#
            ),
        ] {
            sameText(pythonJson(try Json.parse(raw)), shortest, "shortest")
            sameText(pythonJson(try Json.parse(raw), spaces: true), spaced, "with spaces")
        }
    }

    func testARefusalInFourParts() {
        let found = Refusal("it cannot be", got: "a\u{1B}[31mb\nc\u{202E}", expected: 3, todo: "try again")
        XCTAssertEqual(
            found.description, "it cannot be\n  got:      a [31mb c \n  expected: 3\n  to do:    try again")
        XCTAssertEqual(found.localizedDescription, found.description)
        XCTAssertEqual(Refusal("it cannot be").description, "it cannot be")
        XCTAssertEqual(Refusal("x", got: String(repeating: "é", count: 500)).got?.count, 401)
    }
}
