/// JSON as Python's json.dumps(…, sort_keys=True) writes it, ASCII alone: what digests are taken of. With `spaces` its
/// default separators, else the shortest ones. The value has no number that is not finite.
func pythonJson(_ json: Json, spaces: Bool = false) -> String {
    var text = ""
    write(json, into: &text, comma: spaces ? ", " : ",", colon: spaces ? ": " : ":")
    return text
}

private func write(_ json: Json, into text: inout String, comma: String, colon: String) {
    switch json {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .int(let value): text += String(value)
    case .bigInt(let digits): text += digits
    case .float(let value): text += pythonRepr(value)
    case .string(let value): Json.quote(value.unicodeScalars, into: &text, ascii: true)
    case .array(let values):
        text += "["
        for (i, value) in values.enumerated() {
            if i > 0 { text += comma }
            write(value, into: &text, comma: comma, colon: colon)
        }
        text += "]"
    case .object(let object):
        text += "{"
        let members = object.sorted { left, right in
            left.0.unicodeScalars.lexicographicallyPrecedes(right.0.unicodeScalars)
        }
        for (i, member) in members.enumerated() {
            if i > 0 { text += comma }
            Json.quote(member.0.unicodeScalars, into: &text, ascii: true)
            text += colon
            write(member.1, into: &text, comma: comma, colon: colon)
        }
        text += "}"
    }
}
