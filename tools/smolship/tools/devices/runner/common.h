// What all parts share: refusals, text, hashes and base64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

// A refusal, with the class and the exit code of smolship.runtime.errors.
class Refusal : public std::exception {
 public:
  Refusal(const char* kind, int code, std::string what, const std::string& got, const std::string& expected,
          const std::string& todo);
  const char* what() const noexcept override { return text.c_str(); }

  const char* kind;  // InputError, SetupError
  int code;
  std::string text;
};

[[noreturn]] void refuse_input(const std::string& what, const std::string& got = "", const std::string& expected = "",
                               const std::string& todo = "");
[[noreturn]] void refuse_setup(const std::string& what, const std::string& got = "", const std::string& expected = "",
                               const std::string& todo = "");

// One printable line of at most 400 bytes, cut between characters of UTF-8.
std::string clip(std::string_view text, size_t limit = 400);
// A JSON string with its quotes, in ASCII: what is not UTF-8 becomes U+FFFD.
std::string quoted(std::string_view text);
// Whether it is well-formed UTF-8.
bool is_utf8(std::string_view text);
// A double that JSON can hold, with all its digits.
std::string number(double value);

std::string base64(const void* data, size_t size);
// False where the text is no canonical base64 with its padding.
bool from_base64(std::string_view text, std::vector<uint8_t>& out);

class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t size);
  std::string hex();  // ends it

 private:
  void block(const uint8_t* data);
  uint32_t state[8];
  uint64_t length = 0;
  uint8_t buffer[64];
  size_t filled = 0;
};

std::string sha256(std::string_view data);
