// One open ExecuTorch program with its cache, as smolship.runtime.engines.executorch has it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"

namespace executorch::extension::module {
class Module;
}  // namespace executorch::extension::module

// Keep what ExecuTorch logs for messages, register the kernels of kernels.cpp and have `threads` compute.
void prepare_engine(int64_t threads);
void prepare_registry();  // without threads

// ExecuTorch's version, and what is registered.
std::string engine_version();
std::vector<std::string> backends();
std::vector<std::string> operators();

class Session {
 public:
  // Tokens in the cache from which on one token, too, attends by matrix multiplications.
  static constexpr int64_t BLOCK = 256;

  // Raises Refusal (InputError) where the file is no program that can be opened.
  explicit Session(const std::string& path);
  ~Session();

  // Append tokens to the cache. Gives the logits of the last, [vocab]: the engine's own buffer, until the next call.
  const float* forward(const int32_t* ids, int64_t count);
  void rewind(int64_t to);
  // Begin anew behind `count` tokens whose keys and values are those of `layers`, over and over.
  void preset(const std::vector<Block>& layers, int64_t count);
  // Copies of one layer's keys and values of all tokens in the cache.
  Block cache(int64_t layer);

  int64_t vocab = 0, capacity = 0, chunk = 0, position = 0;

 private:
  struct Place {
    float* data;
    int64_t tokens, heads, size;
  };
  int64_t metadata(const char* name);
  const float* run(const int32_t* ids, int64_t count);
  Place place(const char* kind, int64_t layer);
  bool has_layer(int64_t layer);

  std::string path;
  std::unique_ptr<executorch::extension::module::Module> module;
  std::vector<int64_t> ids;
};
