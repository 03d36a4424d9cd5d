// llama::update_cache.out and llama::custom_sdpa.out, float32. Our programs call the second for one token and a cache of
// at most 256 tokens; longer ones attend inside XNNPACK.
//
// Shapes: S tokens of a call, T tokens in the cache after it, H query heads, G key and value heads, K head size.
#include "kernels.h"

#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

// The kernels are compiled for several generations of x86; arm64 has one baseline, with fused multiplication.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define GENERATIONS __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define GENERATIONS
#endif

namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::KernelRuntimeContext;
using executorch::runtime::Span;

constexpr int LANES = 16;

struct Shape {
  int64_t tokens, heads, groups, size, start;
  float scale;
  bool causal;
};

// Query heads `first` to `last` of all tokens; the scores of one query lie in `scores` [start + tokens].
GENERATIONS void attend(const Shape& s, const float* q, const float* keys, const float* values, float* out,
                        int64_t first, int64_t last, float* scores) {
  const int64_t all = s.start + s.tokens, row = s.groups * s.size;
  for (int64_t h = first; h < last; h++) {
    const int64_t group = h / (s.heads / s.groups);
    for (int64_t i = 0; i < s.tokens; i++) {
      const float* query = q + (i * s.heads + h) * s.size;
      float* target = out + (i * s.heads + h) * s.size;
      const int64_t seen = s.causal ? s.start + i + 1 : all;
      float peak = -INFINITY;
      for (int64_t t = 0; t < seen; t++) {
        const float* key = keys + t * row + group * s.size;
        float lanes[LANES] = {};
        int64_t k = 0;
        for (; k + LANES <= s.size; k += LANES) {
          for (int j = 0; j < LANES; j++) lanes[j] += query[k + j] * key[k + j];
        }
        float sum = 0;
        for (; k < s.size; k++) sum += query[k] * key[k];
        for (int half = LANES / 2; half; half /= 2) {
          for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
        }
        scores[t] = (sum + lanes[0]) * s.scale;
        peak = scores[t] > peak || std::isnan(scores[t]) ? scores[t] : peak;
      }
      double total = 0;
      for (int64_t t = 0; t < seen; t++) {
        scores[t] = std::exp(scores[t] - peak);
        total += static_cast<double>(scores[t]);
      }
      const float factor = static_cast<float>(1.0 / total);
      std::fill(target, target + s.size, 0.0F);
      for (int64_t t = 0; t < seen; t++) {
        const float weight = scores[t] * factor;
        const float* value = values + t * row + group * s.size;
        for (int64_t k = 0; k < s.size; k++) target[k] += weight * value[k];
      }
    }
  }
}

bool is_rows(const EValue* value) {
  if (!value->isTensor()) return false;
  const Tensor tensor = value->toTensor();
  return tensor.dim() == 4 && tensor.size(0) == 1 && tensor.scalar_type() == ScalarType::Float;
}

// (value [1, S, G, K], cache [1, T, G, K], start, out, out): copy the value's rows to the cache, from `start` on.
void update_cache(KernelRuntimeContext& context, Span<EValue*> args) {
  const bool good = args.size() >= 4 && is_rows(args[0]) && is_rows(args[1]) && args[2]->isInt();
  if (!good) return context.fail(Error::InvalidArgument);
  const Tensor value = args[0]->toTensor();
  Tensor cache = args[1]->toTensor();
  const int64_t start = args[2]->toInt(), row = value.size(2) * value.size(3);
  if (value.size(2) != cache.size(2) || value.size(3) != cache.size(3) || start < 0 ||
      start > cache.size(1) - value.size(1)) {
    return context.fail(Error::InvalidArgument);
  }
  std::memcpy(cache.mutable_data_ptr<float>() + start * row, value.const_data_ptr<float>(), value.nbytes());
}

// (query [1, S, H, K], keys, values [1, T, G, K], start, mask, dropout, causal, scale, out [1, S, H, K], out)
void custom_sdpa(KernelRuntimeContext& context, Span<EValue*> args) {
  const bool good = args.size() >= 9 && is_rows(args[0]) && is_rows(args[1]) && is_rows(args[2]) && args[3]->isInt() &&
                    args[4]->isNone() && args[6]->isBool() && is_rows(args[8]);
  if (!good) return context.fail(Error::InvalidArgument);
  const Tensor query = args[0]->toTensor(), keys = args[1]->toTensor(), values = args[2]->toTensor();
  Tensor out = args[8]->toTensor();
  const int64_t size = query.size(3);
  const float usual = 1.0F / std::sqrt(static_cast<float>(size));
  const float scale = args[7]->isNone() ? usual : static_cast<float>(args[7]->toDouble());
  const Shape shape{query.size(1), query.size(2), keys.size(2), size, args[3]->toInt(), scale, args[6]->toBool()};
  if (!shape.groups || shape.heads % shape.groups || keys.size(3) != size || values.sizes() != keys.sizes() ||
      shape.start < 0 || shape.start > keys.size(1) - shape.tokens ||
      executorch::runtime::resize_tensor(out, query.sizes()) != Error::Ok) {
    return context.fail(Error::InvalidArgument);
  }
  const float *q = query.const_data_ptr<float>(), *k = keys.const_data_ptr<float>(),
              *v = values.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  const auto some = [&](int64_t first, int64_t last) {
    std::vector<float> scores(static_cast<size_t>(shape.start + shape.tokens));
    attend(shape, q, k, v, to, first, last, scores.data());
  };
  if (!executorch::extension::parallel_for(0, shape.heads, 1, some)) context.fail(Error::Internal);
}

}  // namespace

void register_llama_kernels() {
  using executorch::runtime::Kernel;
  static const Kernel kernels[] = {
      Kernel("llama::update_cache.out", update_cache),
      Kernel("llama::custom_sdpa.out", custom_sdpa),
  };
  static const Error error = executorch::runtime::register_kernels({kernels, 2});
  (void)error;  // a second registration of one name ends the process by itself
}
