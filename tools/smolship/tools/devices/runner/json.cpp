#include "json.h"

#include "common.h"

namespace {

constexpr int DEEPEST = 200;
constexpr size_t MOST_VALUES = size_t{1} << 22;  // of about 100 bytes in memory

class Parser {
 public:
  Parser(std::string_view text, const std::string& what, const std::string& where)
      : text(text), what(what), where(where) {}

  Json whole() {
    Json found = value(0);
    space();
    if (at != text.size()) bad("something after its end");
    return found;
  }

 private:
  [[noreturn]] void bad(const char* why) const {
    refuse_input(what + " is not valid JSON", std::string(why) + " at byte " + std::to_string(at) + " in " + where,
                 "a JSON object");
  }
  void space() {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t')) at++;
  }
  char peek() const { return at < text.size() ? text[at] : '\0'; }
  bool take(std::string_view word) {
    if (text.substr(at, word.size()) != word) return false;
    at += word.size();
    return true;
  }

  Json value(int depth) {
    if (depth > DEEPEST) bad("lists within lists without end");
    if (++values > MOST_VALUES) bad("too many values");
    space();
    Json found;
    if (peek() == '{') return object(depth);
    if (peek() == '[') return list(depth);
    if (peek() == '"') {
      found.kind = Json::Kind::text;
      found.string = string();
    } else if (take("true") || take("false")) {
      found.kind = Json::Kind::boolean;
      found.truth = text[at - 2] == 'u';
    } else if (!take("null")) {
      return number();
    }
    return found;
  }

  Json object(int depth) {
    Json found;
    found.kind = Json::Kind::object;
    at++;
    space();
    if (take("}")) return found;
    do {
      space();
      if (peek() != '"') bad("no key");
      std::string key = string();
      space();
      if (!take(":")) bad("no colon");
      Json inner = value(depth + 1);
      bool again = false;
      for (auto& member : found.members) {
        if (member.first == key) member.second = std::move(inner), again = true;
        if (again) break;
      }
      if (!again) found.members.emplace_back(std::move(key), std::move(inner));
      if (found.members.size() > 10000) bad("too many keys");  // each is looked for in all before it
      space();
    } while (take(","));
    if (!take("}")) bad("no end of an object");
    return found;
  }

  Json list(int depth) {
    Json found;
    found.kind = Json::Kind::list;
    at++;
    space();
    if (take("]")) return found;
    do {
      found.items.push_back(value(depth + 1));
      space();
    } while (take(","));
    if (!take("]")) bad("no end of a list");
    return found;
  }

  Json number() {
    const size_t start = at;
    const auto digits = [&] {
      const size_t before = at;
      while (peek() >= '0' && peek() <= '9') at++;
      return at > before;
    };
    Json found;
    found.kind = Json::Kind::whole;
    take("-");
    if (peek() == '0') {
      at++;
    } else if (!digits()) {
      bad("no value");
    }
    const size_t stop = at;
    if (peek() == '.') {
      at++;
      found.kind = Json::Kind::real;
      if (!digits()) bad("no digits");
    }
    if (peek() == 'e' || peek() == 'E') {
      at++;
      found.kind = Json::Kind::real;
      if (!take("-")) take("+");
      if (!digits()) bad("no digits");
    }
    if (found.kind == Json::Kind::whole) {
      const bool minus = text[start] == '-';
      const std::string_view figures = text.substr(start + minus, stop - start - minus);
      found.huge = figures.size() > 18;
      if (!found.huge) {
        for (const char figure : figures) found.integer = 10 * found.integer + (figure - '0');
      }
      if (minus) found.integer = -found.integer;
    }
    found.string = text.substr(start, at - start > 60 ? 60 : at - start);
    return found;
  }

  uint32_t four() {
    uint32_t code = 0;
    for (int i = 0; i < 4; i++, at++) {
      const char c = peek();
      if (c >= '0' && c <= '9') {
        code = code << 4 | static_cast<uint32_t>(c - '0');
      } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
        code = code << 4 | static_cast<uint32_t>((c | 32) - 'a' + 10);
      } else {
        bad("no code of a character");
      }
    }
    return code;
  }

  std::string string() {
    std::string out;
    at++;
    for (;;) {
      const size_t start = at;
      while (at < text.size() && text[at] != '"' && text[at] != '\\' && static_cast<uint8_t>(text[at]) >= 0x20) at++;
      out += text.substr(start, at - start);
      if (take("\"")) return out;
      if (!take("\\")) bad("no end of a string");
      const char c = peek();
      at++;
      const std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      const size_t known = c ? from.find(c) : std::string_view::npos;
      if (known != std::string_view::npos) {
        out += to[known];
      } else if (c == 'u') {
        escaped(out);
      } else {
        bad("an unknown escape");
      }
    }
  }

  // Half of a surrogate pair, which no name can hold, becomes U+FFFD.
  void escaped(std::string& out) {
    uint32_t code = four();
    if (code >= 0xD800 && code < 0xDC00 && text.substr(at, 2) == "\\u") {
      const size_t before = at;
      at += 2;
      const uint32_t low = four();
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else {
        at = before;
      }
    }
    if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
    const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) return put(0xC0 | code >> 6), put(0x80 | (code & 63));
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 63));
    }
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  }

  std::string_view text;
  const std::string& what;
  const std::string& where;
  size_t at = 0;
  size_t values = 0;
};

}  // namespace

const Json& Json::operator[](std::string_view name) const {
  static const Json* nothing = new Json;
  for (const auto& member : members) {
    if (member.first == name) return member.second;
  }
  return *nothing;
}

std::string Json::shown() const {
  switch (kind) {
    case Kind::null:
      return "null";
    case Kind::boolean:
      return truth ? "true" : "false";
    case Kind::whole:
    case Kind::real:
      return string;
    case Kind::text:
      return "'" + clip(string, 120) + "'";
    case Kind::list:
      return "a list of " + std::to_string(items.size());
    case Kind::object:
      return "an object of " + std::to_string(members.size());
  }
  return "";
}

Json parse_json(std::string_view text, const std::string& what, const std::string& where) {
  if (!is_utf8(text)) refuse_input(what + " is not valid JSON", "bytes that are no UTF-8 in " + where, "a JSON object");
  Json found = Parser(text, what, where).whole();
  if (found.kind != Json::Kind::object) refuse_input(what + " is not a JSON object", found.shown(), "a JSON object");
  return found;
}
