/// What comes in place of a file, by its first bytes: the cause to name before "not valid JSON".
func lookedLike(_ head: ArraySlice<UInt8>) -> (what: String, todo: String)? {
    let fetch = "copy or download it again"
    if head.isEmpty { return ("an empty file", fetch) }
    if head.allSatisfy({ $0 == 0 }) { return ("nothing but zeros", "\(fetch): its room was reserved and never filled") }
    let text = String(decoding: head, as: UTF8.self).trimmingPrefix { $0.isWhitespace || $0 == "\u{FEFF}" }.lowercased()
    if text.hasPrefix("version https://git-lfs") {
        return ("a git-lfs pointer, which only names the file", "run `git lfs pull` where it comes from")
    }
    if ["<!doctype html", "<html", "<head", "<body"].contains(where: text.hasPrefix) {
        return ("a web page", "\(fetch): the link that was followed leads to a page")
    }
    return nil
}

/// An untrusted file's bytes as a JSON object; UTF-8 without a byte order mark.
func parseObject(_ bytes: some Collection<UInt8>, _ what: String, limit: Int) throws -> Json {
    let json: Json
    do {
        json = try Json.parse(bytes, limits: JsonLimits(bytes: limit))
    } catch {
        let look = lookedLike(Array(bytes.prefix(512))[...])
        throw Refusal(
            "\(what) is not valid JSON", got: look?.what ?? "\(error)", expected: "a JSON object", todo: look?.todo)
    }
    guard let object = json.objectValue else {
        throw Refusal("\(what) is not a JSON object", got: shown(json), expected: "a JSON object")
    }
    let said = ["error", "errors", "detail", "message", "code", "status"]
    if object.count > 0, object.keys.allSatisfy(said.contains) {
        throw Refusal(
            "\(what) holds a server's error message", got: shown(object[object.keys[0]]),
            todo: "log in there, or copy it again")
    }
    return json
}
