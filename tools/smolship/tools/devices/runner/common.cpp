#include "common.h"

#include <cstdio>
#include <cstring>

namespace {

std::string joined(std::string what, const std::string& got, const std::string& expected, const std::string& todo) {
  if (!got.empty()) what += "\n  got:      " + clip(got);
  if (!expected.empty()) what += "\n  expected: " + clip(expected);
  if (!todo.empty()) what += "\n  to do:    " + todo;
  return what;
}

// Bytes of the well-formed character that `text` begins with; 0 where there is none. Its code point goes to `point`.
size_t character(std::string_view text, uint32_t& point) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return point = first, 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < size) return 0;
  point = first & (0x7F >> size);
  for (size_t i = 1; i < size; i++) {
    if ((at(i) & 0xC0) != 0x80) return 0;
    point = point << 6 | (at(i) & 0x3F);
  }
  const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool good = point >= least[size] && point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
  return good ? size : 0;
}

const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const uint32_t ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t turned(uint32_t x, int by) { return x >> by | x << (32 - by); }

}  // namespace

Refusal::Refusal(const char* kind, int code, std::string what, const std::string& got, const std::string& expected,
                 const std::string& todo)
    : kind(kind), code(code), text(joined(std::move(what), got, expected, todo)) {}

void refuse_input(const std::string& what, const std::string& got, const std::string& expected,
                  const std::string& todo) {
  throw Refusal("InputError", 2, what, got, expected, todo);
}

void refuse_setup(const std::string& what, const std::string& got, const std::string& expected,
                  const std::string& todo) {
  throw Refusal("SetupError", 3, what, got, expected, todo);
}

std::string clip(std::string_view text, size_t limit) {
  std::string out;
  uint32_t point = 0;
  for (size_t i = 0; i < text.size();) {
    size_t size = character(text.substr(i), point);
    if (out.size() + 4 > limit) return out + "…";
    if (!size || point < 0x20 || (point >= 0x7F && point < 0xA0)) {
      out += ' ';
      size = size ? size : 1;
    } else {
      out += text.substr(i, size);
    }
    i += size;
  }
  return out;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  char code[16];
  for (size_t i = 0; i < text.size();) {
    uint32_t point = 0;
    size_t size = character(text.substr(i), point);
    if (!size) point = 0xFFFD, size = 1;
    if (point == '"' || point == '\\') {
      out += '\\';
      out += static_cast<char>(point);
    } else if (point >= 0x20 && point < 0x7F) {
      out += static_cast<char>(point);
    } else if (point < 0x10000) {
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(point));
      out += code;
    } else {
      point -= 0x10000;
      std::snprintf(code, sizeof code, "\\u%04x\\u%04x", 0xD800U + static_cast<unsigned>(point >> 10),
                    0xDC00U + static_cast<unsigned>(point & 0x3FF));
      out += code;
    }
    i += size;
  }
  return out + "\"";
}

bool is_utf8(std::string_view text) {
  uint32_t point = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t size = character(text.substr(i), point);
    if (!size) return false;
    i += size;
  }
  return true;
}

std::string number(double value) {
  char out[40];
  std::snprintf(out, sizeof out, "%.17g", value);
  return out;
}

std::string base64(const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  std::string out;
  out.reserve((size + 2) / 3 * 4);
  for (size_t i = 0; i < size; i += 3) {
    const size_t some = size - i < 3 ? size - i : 3;
    uint32_t three = bytes[i] << 16 | (some > 1 ? bytes[i + 1] << 8 : 0) | (some > 2 ? bytes[i + 2] : 0);
    for (size_t j = 0; j < 4; j++) out += j <= some ? LETTERS[three >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

bool from_base64(std::string_view text, std::vector<uint8_t>& out) {
  int8_t values[256];
  std::memset(values, -1, sizeof values);
  for (int i = 0; i < 64; i++) values[static_cast<uint8_t>(LETTERS[i])] = static_cast<int8_t>(i);
  if (text.size() % 4) return false;
  size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') padding++;
  out.clear();
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    uint32_t three = 0;
    for (size_t j = 0; j < 4; j++) {
      const bool filled = last && j >= 4 - padding;
      const int value = filled ? 0 : values[static_cast<uint8_t>(text[i + j])];
      if (value < 0) return false;
      three = three << 6 | static_cast<uint32_t>(value);
    }
    for (size_t j = 0; j < 3 - (last ? padding : 0); j++) out.push_back(three >> (16 - 8 * j) & 255);
  }
  return true;
}

Sha256::Sha256()
    : state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

void Sha256::block(const uint8_t* data) {
  uint32_t w[64];
  for (int i = 0; i < 16; i++) {
    w[i] = uint32_t{data[4 * i]} << 24 | data[4 * i + 1] << 16 | data[4 * i + 2] << 8 | data[4 * i + 3];
  }
  for (int i = 16; i < 64; i++) {
    const uint32_t a = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t b = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  uint32_t s[8];
  std::memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    const uint32_t one = turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25);
    const uint32_t first = s[7] + one + ((s[4] & s[5]) ^ (~s[4] & s[6])) + ROUNDS[i] + w[i];
    const uint32_t zero = turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22);
    const uint32_t second = zero + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    std::memmove(s + 1, s, 7 * sizeof *s);
    s[4] += first;
    s[0] = first + second;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

void Sha256::update(const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  length += size;
  while (size) {
    if (!filled && size >= sizeof buffer) {
      block(bytes);
      bytes += sizeof buffer, size -= sizeof buffer;
      continue;
    }
    const size_t some = size < sizeof buffer - filled ? size : sizeof buffer - filled;
    std::memcpy(buffer + filled, bytes, some);
    filled += some, bytes += some, size -= some;
    if (filled == sizeof buffer) block(buffer), filled = 0;
  }
}

std::string Sha256::hex() {
  const uint64_t bits = length * 8;
  const uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (filled != 56) update(&zero, 1);
  uint8_t end[8];
  for (int i = 0; i < 8; i++) end[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  update(end, sizeof end);
  std::string out;
  char code[9];
  for (uint32_t word : state) {
    std::snprintf(code, sizeof code, "%08x", static_cast<unsigned>(word));
    out += code;
  }
  return out;
}

std::string sha256(std::string_view data) {
  Sha256 hash;
  hash.update(data.data(), data.size());
  return hash.hex();
}
