#include "session.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "common.h"
#include "kernels.h"
#include "system.h"

namespace et = executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::Module;

// The header that declares these is not among those that ExecuTorch's package carries.
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  bool _unsafe_reset_threadpool(uint32_t new_thread_count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

std::mutex log_lock;
std::string said[2];  // the last lines that ExecuTorch logged

void keep_log(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t, const char* message, size_t) {
  if (level != et_pal_log_level_t::kError && level != et_pal_log_level_t::kFatal) return;
  const std::lock_guard<std::mutex> held(log_lock);
  said[0] = std::move(said[1]);
  said[1] = message;
  std::fprintf(stderr, "%s\n", message);
}

[[noreturn]] void bad(const std::string& path, const std::string& why) {
  refuse_input("not a program that ExecuTorch can open", path + ": " + why, "a .pte file that smolship wrote",
               "export it again");
}

std::string told(et::Error error) {
  const std::lock_guard<std::mutex> held(log_lock);
  return std::string(et::to_string(error)) + "; " + said[0] + " " + said[1];
}

// Magic numbers and lengths. On a file without them ExecuTorch can end the process.
void check_frame(const std::string& path) {
  const uint64_t size = regular_file(path, "ExecuTorch program");
  unsigned char head[40] = {};
  FILE* file = std::fopen(path.c_str(), "re");
  const size_t got = file ? std::fread(head, 1, sizeof head, file) : 0;
  if (file) std::fclose(file);
  if (got < sizeof head || std::memcmp(head + 4, "ET", 2) || std::memcmp(head + 8, "eh00", 4)) {
    bad(path, "it does not begin as a program does");
  }
  uint64_t part[3];  // bytes of program, offset and bytes of the weights
  std::memcpy(part, head + 16, sizeof part);
  if (part[0] > part[1] || part[1] > size || part[2] != size - part[1]) {
    bad(path, "it has " + std::to_string(size) + " bytes and claims " + std::to_string(part[1] + part[2]));
  }
}

// A float32 that fp16 holds exactly, the nearest (ties to even). For factors of attention's keys and values.
float as_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits & 0x80000000U, magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return value;  // NaN
  float size;
  if (magnitude < 0x38800000U) {  // subnormal in fp16: a multiple of 2^-24
    std::memcpy(&size, &magnitude, sizeof size);
    size = (size + 0.5F) - 0.5F;  // float32 has steps of 2^-24 from 1/2 to 1
  } else {
    uint32_t rounded = (magnitude + 0xFFFU + (magnitude >> 13 & 1U)) & ~0x1FFFU;
    if (rounded >= 0x47800000U) rounded = 0x7F800000U;
    std::memcpy(&size, &rounded, sizeof size);
  }
  uint32_t out;
  std::memcpy(&out, &size, sizeof out);
  out |= sign;
  std::memcpy(&size, &out, sizeof size);
  return size;
}

}  // namespace

void prepare_registry() {
  et::register_pal(et::PalImpl::create(keep_log, __FILE__));
  et::runtime_init();
  register_llama_kernels();
}

void prepare_engine(int64_t threads) {
  prepare_registry();
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (!pool || !pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads))) {
    refuse_setup("ExecuTorch cannot compute with so many threads", std::to_string(threads));
  }
}

std::string engine_version() { return EXECUTORCH_VERSION; }

std::vector<std::string> backends() {
  std::vector<std::string> found;
  for (size_t i = 0; i < et::get_num_registered_backends(); i++) {
    const auto name = et::get_backend_name(i);
    const auto* backend = name.ok() ? et::get_backend_class(*name) : nullptr;
    if (backend && backend->is_available()) found.push_back(*name);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> operators() {
  std::vector<std::string> found;
  for (const et::Kernel& kernel : et::get_registered_kernels()) {
    if (kernel.name_) found.push_back(kernel.name_);
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

Session::Session(const std::string& path) : path(path) {
  check_frame(path);
  module = std::make_unique<Module>(path, Module::LoadMode::MmapUseMlockIgnoreErrors);
  et::Error error = module->load();
  if (error != et::Error::Ok) bad(path, told(error));
  vocab = metadata("get_vocab_size");
  capacity = metadata("get_max_context_len");
  chunk = metadata("get_max_seq_len");
  error = module->load_method("forward");
  if (error != et::Error::Ok) bad(path, told(error));
  const int32_t zero = 0;
  run(&zero, 1);  // what loads the weights; position 0 is written again by the first
}

Session::~Session() = default;

int64_t Session::metadata(const char* name) {
  const auto found = module->execute(name);
  if (!found.ok()) bad(path, std::string(name) + ": " + told(found.error()));
  if (found->size() != 1 || !(*found)[0].isInt() || (*found)[0].toInt() < 1 || (*found)[0].toInt() > INT32_MAX) {
    bad(path, std::string(name) + " gives no number");
  }
  return (*found)[0].toInt();
}

const float* Session::run(const int32_t* tokens, int64_t count) {
  ids.assign(tokens, tokens + count);
  SizesType shape[2] = {1, static_cast<SizesType>(count)}, one[1] = {1};
  executorch::aten::DimOrderType order[2] = {0, 1};
  executorch::aten::StridesType strides[2] = {static_cast<SizesType>(count), 1};
  int64_t start[1] = {position};
  executorch::aten::TensorImpl words(ScalarType::Long, 2, shape, ids.data(), order, strides);
  executorch::aten::TensorImpl place(ScalarType::Long, 1, one, start, order, strides + 1);
  const std::vector<et::EValue> inputs{executorch::aten::Tensor(&words), executorch::aten::Tensor(&place)};
  const auto outputs = module->forward(inputs);
  if (!outputs.ok()) bad(path, told(outputs.error()));
  if (outputs->empty() || !(*outputs)[0].isTensor()) bad(path, "it gives no logits");
  const auto logits = (*outputs)[0].toTensor();
  if (logits.scalar_type() != ScalarType::Float || logits.numel() != vocab) bad(path, "it gives other logits");
  return logits.const_data_ptr<float>();
}

const float* Session::forward(const int32_t* tokens, int64_t count) {
  if (count < 1) refuse_input("token ids must be a list with something in it");
  if (count > capacity - position) {
    refuse_input("the prompt is longer than the context",
                 std::to_string(count) + " tokens after " + std::to_string(position),
                 "at most " + std::to_string(capacity - position), "shorten it, or export with a larger --context");
  }
  for (int64_t i = 0; i < count; i++) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      refuse_input("a token id is not in the vocabulary", std::to_string(tokens[i]),
                   "0 to " + std::to_string(vocab - 1));
    }
  }
  const float* last = nullptr;
  for (int64_t start = 0; start < count; start += chunk) {
    const int64_t some = std::min(chunk, count - start);
    last = run(tokens + start, some);
    position += some;
  }
  return last;
}

void Session::rewind(int64_t to) {
  if (to < 0 || to > position) {
    refuse_input("cannot rewind to there", std::to_string(to), "0 to " + std::to_string(position));
  }
  position = to;
}

bool Session::has_layer(int64_t layer) {
  const auto method = module->method("forward");
  return method.ok() && (*method)->get_attribute("keys." + std::to_string(layer)).ok();
}

Session::Place Session::place(const char* kind, int64_t layer) {
  const std::string name = std::string(kind) + "." + std::to_string(layer);
  const auto method = module->method("forward");
  if (!method.ok()) bad(path, told(method.error()));
  const auto found = (*method)->get_attribute(name);
  if (!found.ok()) refuse_input("the program has no such layer", name, "", "export the bundle again");
  const auto& tensor = *found;
  if (tensor.dim() != 4 || tensor.size(0) != 1 || tensor.scalar_type() != ScalarType::Float ||
      tensor.size(1) < position) {
    bad(path, name + " is no cache");
  }
  return {tensor.mutable_data_ptr<float>(), tensor.size(1), tensor.size(2), tensor.size(3)};
}

Block Session::cache(int64_t layer) {
  Block found;
  for (const char* kind : {"keys", "values"}) {
    const Place all = place(kind, layer);
    found.tokens = position, found.heads = all.heads, found.size = all.size;
    found.data.insert(found.data.end(), all.data, all.data + position * all.heads * all.size);
  }
  return found;
}

void Session::preset(const std::vector<Block>& layers, int64_t count) {
  if (count < 0 || count > capacity) {
    refuse_input("the cache does not hold so many tokens", std::to_string(count),
                 "at most " + std::to_string(capacity));
  }
  rewind(0);
  const auto unfit = [](const std::string& got) {
    refuse_input("the keys and values are not of this model's shape", got, "", "export the bundle again");
  };
  if (has_layer(static_cast<int64_t>(layers.size()))) {
    unfit(std::to_string(layers.size()) + " layers, and the program has more");
  }
  for (size_t i = 0; i < layers.size(); i++) {
    const Block& from = layers[i];
    const size_t row = from.heads * from.size, half = from.tokens * row;
    for (size_t part = 0; part < 2; part++) {
      if (!has_layer(static_cast<int64_t>(i))) unfit("layer " + std::to_string(i));
      const Place to = place(part ? "values" : "keys", static_cast<int64_t>(i));
      const bool fits = static_cast<int64_t>(from.heads) == to.heads && static_cast<int64_t>(from.size) == to.size;
      if (!fits || !half || to.tokens < count) unfit("layer " + std::to_string(i));
      const float* rows = from.data.data() + part * half;
      for (int64_t t = 0; t < count; t++) {
        const int64_t turn = t / static_cast<int64_t>(from.tokens);
        const float factor = 1.0F - static_cast<float>(turn * 619 % 2048) / 4096.0F;
        const float* source = rows + static_cast<size_t>(t) % from.tokens * row;
        float* target = to.data + static_cast<size_t>(t) * row;
        for (size_t k = 0; k < row; k++) target[k] = as_half(source[k] * factor);
      }
    }
  }
  position = count;
}
