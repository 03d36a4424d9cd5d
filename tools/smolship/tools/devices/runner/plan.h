// The plan of smolship.runtime.plan, read from its file as untrusted input.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "json.h"

// int32 [rows, columns], row by row.
struct Table {
  std::vector<int32_t> data;
  size_t rows = 0, columns = 0;
};

// float32 [2, tokens, kv heads, head size]: one layer's keys, then its values.
struct Block {
  std::vector<float> data;
  size_t tokens = 0, heads = 0, size = 0;
};

struct Text {
  std::vector<int32_t> ids, at;
  Table wanted;

  // Row of `wanted` for position `start`, where all of start to stop are there; -1 where nothing is wanted of them.
  int64_t rows(int64_t start, int64_t stop) const;
};

enum class Look { none, last, all };

struct Call {
  std::string stage;
  int64_t text = 0, start = 0, stop = 0;
  Look look = Look::last;
  std::optional<int64_t> rewind, preset;
  bool greedy = false, exact = false;

  // The first position that is looked at.
  int64_t looked() const { return look == Look::none ? stop : look == Look::last ? stop - 1 : start; }
};

struct Timing {
  std::vector<int64_t> prompts, depths;
  int64_t tokens = 0, repeats = 0, warmups = 0, sustained = 0;  // sustained: seconds
};

// Decoding from the first text on.
struct Answer {
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_ids;
};

struct Plan {
  std::string purpose, target, engine, arithmetic, file;
  int64_t threads = 0, layers = 0, highest = -1;
  std::vector<Text> texts;
  std::vector<Call> calls;
  std::vector<Block> cache;
  std::optional<Timing> timing;
  std::optional<Answer> answer;
  bool loads = false;
  std::string digest;  // SHA-256 of the file
};

// Raises Refusal where the file holds no plan that can be executed.
Plan read_plan(const std::string& path);
