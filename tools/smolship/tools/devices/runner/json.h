// JSON of an untrusted file, as Python's json module reads it: bounded depth, no trailing text, last of equal keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

class Json {
 public:
  enum class Kind { null, boolean, whole, real, text, list, object };

  Kind kind = Kind::null;
  bool truth = false;
  int64_t integer = 0;  // of a whole number; `huge` where it does not fit
  bool huge = false;
  std::string string;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;

  // The member of that name; null where there is none.
  const Json& operator[](std::string_view name) const;
  // What it is, for a message.
  std::string shown() const;
};

// Raises Refusal (InputError) where the text is no JSON object; `what` names the file.
Json parse_json(std::string_view text, const std::string& what, const std::string& where);
