#include "plan.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "common.h"
#include "system.h"

namespace {

constexpr int64_t SCHEMA = 1, MOST = 1 << 20, MOST_THREADS = 1024;
constexpr size_t LIMIT = size_t{1} << 29;  // bytes of a file
constexpr size_t SHOWN = 5;                // problems in one message

[[noreturn]] void wrong(const std::string& at, const std::string& got, const std::string& expected) {
  refuse_input("plan: " + at + " cannot be used", got, expected, "make it again");
}

const Json& object(const Json& raw, const std::string& at, std::initializer_list<const char*> names) {
  if (raw.kind != Json::Kind::object) wrong(at, raw.shown(), "a value of type dict");
  for (const auto& member : raw.members) {
    const bool known = std::any_of(names.begin(), names.end(), [&](const char* name) { return member.first == name; });
    if (!known) refuse_input("plan: " + at + " has unknown keys", member.first);
  }
  return raw;
}

const std::vector<Json>& list(const Json& raw, const std::string& at) {
  if (raw.kind != Json::Kind::list) wrong(at, raw.shown(), "a value of type list");
  return raw.items;
}

int64_t whole(const Json& raw, const std::string& at) {
  if (raw.kind != Json::Kind::whole || raw.huge) wrong(at, raw.shown(), "a value of type int");
  return raw.integer;
}

std::optional<int64_t> whole_or_none(const Json& raw, const std::string& at) {
  if (raw.kind == Json::Kind::null) return std::nullopt;
  return whole(raw, at);
}

bool truth(const Json& raw, const std::string& at) {
  if (raw.kind != Json::Kind::boolean) wrong(at, raw.shown(), "a value of type bool");
  return raw.truth;
}

const std::string& text_of(const Json& raw, const std::string& at) {
  if (raw.kind != Json::Kind::text) wrong(at, raw.shown(), "a value of type str");
  return raw.string;
}

const std::string& one_of(const Json& raw, const std::string& at, std::initializer_list<const char*> known) {
  std::string all;
  for (const char* one : known) {
    if (raw.kind == Json::Kind::text && raw.string == one) return raw.string;
    all += (all.empty() ? "" : ", ") + std::string(one);
  }
  wrong(at, raw.shown(), "one of " + all);
}

std::vector<int32_t> ids(const Json& raw, const std::string& at) {
  std::vector<int32_t> found;
  for (const Json& one : list(raw, at)) {
    if (one.kind != Json::Kind::whole || one.huge || one.integer != static_cast<int32_t>(one.integer)) {
      wrong(at, one.shown(), "int32 in 1 dimensions");
    }
    found.push_back(static_cast<int32_t>(one.integer));
  }
  return found;
}

// The elements of an array of `dtype`, 4 bytes each, little-endian as all machines that this is built for.
template <class T>
std::vector<T> array(const Json& raw, const std::string& at, const char* dtype, size_t dimensions,
                     std::vector<size_t>& shape) {
  const std::string expected = std::string(dtype) + " in " + std::to_string(dimensions) + " dimensions";
  if (raw.kind != Json::Kind::object || raw.members.size() != 3) wrong(at, raw.shown(), expected);
  const Json &kind = raw["dtype"], &sizes = raw["shape"], &code = raw["base64"];
  if (kind.string != dtype || sizes.kind != Json::Kind::list || sizes.items.size() != dimensions) {
    wrong(at, kind.shown() + ", " + sizes.shown(), expected);
  }
  size_t count = 1;
  shape.clear();
  bool empty = false;
  for (const Json& size : sizes.items) {
    const bool good = size.kind == Json::Kind::whole && !size.huge && size.integer >= 0;
    if (!good || size.integer > static_cast<int64_t>(LIMIT)) wrong(at, "a shape with " + size.shown(), expected);
    shape.push_back(static_cast<size_t>(size.integer));
    empty |= !size.integer;
    if (size.integer && count > LIMIT / shape.back()) wrong(at, "a shape that is too large", expected);
    if (size.integer) count *= shape.back();
  }
  if (empty) count = 0;
  std::vector<uint8_t> bytes;
  if (code.kind != Json::Kind::text || !from_base64(code.string, bytes)) wrong(at, "no base64", expected);
  if (bytes.size() != count * sizeof(T)) {
    wrong(at, std::to_string(bytes.size()) + " bytes for " + std::to_string(count) + " elements", expected);
  }
  std::vector<T> found(count);
  if (count) std::memcpy(found.data(), bytes.data(), bytes.size());
  return found;
}

Text text(const Json& raw, const std::string& at) {
  object(raw, at, {"ids", "at", "wanted"});
  Text found;
  std::vector<size_t> shape;
  found.ids = ids(raw["ids"], at + ".ids");
  found.at = ids(raw["at"], at + ".at");
  found.wanted.data = array<int32_t>(raw["wanted"], at + ".wanted", "int32", 2, shape);
  found.wanted.rows = shape[0], found.wanted.columns = shape[1];
  const auto negative = [](int32_t one) { return one < 0; };
  if (found.ids.empty() || std::any_of(found.ids.begin(), found.ids.end(), negative) ||
      std::any_of(found.wanted.data.begin(), found.wanted.data.end(), negative)) {
    refuse_input("a plan's text has no tokens, or negative ones", at);
  }
  bool inside = found.at.size() == found.wanted.rows;
  for (size_t i = 0; i < found.at.size(); i++) {
    const int64_t before = i ? found.at[i - 1] : -1;
    inside = inside && found.at[i] > before && found.at[i] < static_cast<int64_t>(found.ids.size());
  }
  if (!inside) refuse_input("a plan's text wants logits at positions that it has not, or not in order", at);
  return found;
}

Call call(const Json& raw, const std::string& at) {
  object(raw, at, {"stage", "text", "start", "stop", "look", "rewind", "greedy", "exact", "preset"});
  Call found;
  found.stage = text_of(raw["stage"], at + ".stage");
  found.text = whole(raw["text"], at + ".text");
  found.start = whole(raw["start"], at + ".start");
  found.stop = whole(raw["stop"], at + ".stop");
  const std::string& look = one_of(raw["look"], at + ".look", {"none", "last", "all"});
  found.look = look == "none" ? Look::none : look == "last" ? Look::last : Look::all;
  found.rewind = whole_or_none(raw["rewind"], at + ".rewind");
  found.preset = whole_or_none(raw["preset"], at + ".preset");
  found.greedy = truth(raw["greedy"], at + ".greedy");
  found.exact = truth(raw["exact"], at + ".exact");
  return found;
}

bool can(const Plan& plan, size_t i) {
  const Call& call = plan.calls[i];
  if (call.text < 0 || call.text >= static_cast<int64_t>(plan.texts.size())) return false;
  const auto length = static_cast<int64_t>(plan.texts[call.text].ids.size());
  if (call.start < 0 || call.start >= call.stop || call.stop > length) return false;
  if (call.rewind.value_or(0) < 0) return false;
  if (call.preset && (*call.preset < 0 || plan.cache.empty() || call.rewind)) return false;
  return !call.greedy || (i && call.look == Look::all && !call.rewind && !call.preset);
}

Timing timing(const Json& raw) {
  object(raw, "timing", {"prompts", "depths", "tokens", "repeats", "warmups", "sustained"});
  Timing found;
  for (const Json& one : list(raw["prompts"], "timing.prompts")) found.prompts.push_back(whole(one, "timing.prompts"));
  for (const Json& one : list(raw["depths"], "timing.depths")) found.depths.push_back(whole(one, "timing.depths"));
  found.tokens = whole(raw["tokens"], "timing.tokens");
  found.repeats = whole(raw["repeats"], "timing.repeats");
  found.warmups = whole(raw["warmups"], "timing.warmups");
  found.sustained = whole(raw["sustained"], "timing.sustained");
  return found;
}

bool can_time(const Plan& plan, const Timing& timing) {
  const int64_t longest = plan.texts.empty() ? 0 : static_cast<int64_t>(plan.texts[0].ids.size());
  const auto good = [&](int64_t size) { return size >= 1 && size <= longest; };
  const auto counted = [](int64_t count) { return count >= 1 && count <= MOST; };
  return !timing.prompts.empty() && !timing.depths.empty() &&
         std::all_of(timing.prompts.begin(), timing.prompts.end(), good) &&
         std::all_of(timing.depths.begin(), timing.depths.end(), good) && counted(timing.tokens) &&
         counted(timing.repeats) && std::min(timing.warmups, timing.sustained) >= 0 &&
         std::max(timing.warmups, timing.sustained) <= MOST;
}

double real(const Json& raw, const std::string& at) {
  if (raw.kind != Json::Kind::whole && raw.kind != Json::Kind::real) wrong(at, raw.shown(), "a finite number");
  return std::strtod(raw.shown().c_str(), nullptr);
}

// Of greedy decoding alone: another choice would need the same random numbers as numpy's.
Answer answer(const Json& raw) {
  object(raw, "answer", {"max_tokens", "stop_ids", "sampling"});
  Answer found;
  found.max_tokens = whole(raw["max_tokens"], "answer.max_tokens");
  found.stop_ids = ids(raw["stop_ids"], "answer.stop_ids");
  const Json& sampling = raw["sampling"];
  object(sampling, "answer.sampling", {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"});
  const double temperature = real(sampling["temperature"], "answer.sampling.temperature");
  const double penalty = real(sampling["repetition_penalty"], "answer.sampling.repetition_penalty");
  if (temperature != 0 || penalty != 1) {
    refuse_input("this runner does not sample",
                 "temperature " + number(temperature) + ", repetition penalty " + number(penalty),
                 "temperature 0, repetition penalty 1", "execute this plan with Python's runner");
  }
  return found;
}

bool can_answer(const Plan& plan, const Answer& answer) {
  const bool alone = plan.texts.size() == 1 && plan.calls.empty() && !plan.layers && !plan.timing;
  const auto negative = [](int32_t one) { return one < 0; };
  return alone && answer.max_tokens >= 1 && answer.max_tokens <= MOST &&
         std::none_of(answer.stop_ids.begin(), answer.stop_ids.end(), negative);
}

void check(const Plan& plan) {
  std::vector<std::string> problems;
  if (plan.threads < 1 || plan.threads > MOST_THREADS) problems.push_back(std::to_string(plan.threads) + " threads");
  if (plan.layers < 0 || plan.layers > MOST) problems.push_back(std::to_string(plan.layers) + " layers");
  if (plan.calls.size() > MOST) problems.push_back(std::to_string(plan.calls.size()) + " calls");
  for (size_t i = 0; i < plan.calls.size() && problems.size() < SHOWN; i++) {
    if (!can(plan, i)) problems.push_back("call " + std::to_string(i));
  }
  if (plan.timing && !can_time(plan, *plan.timing)) problems.push_back("its timing");
  if (plan.answer && !can_answer(plan, *plan.answer)) problems.push_back("its answer");
  if (problems.empty()) return;
  std::string all;
  for (const std::string& one : problems) all += (all.empty() ? "" : ", ") + one;
  refuse_input("a plan asks what cannot be done", all);
}

}  // namespace

int64_t Text::rows(int64_t start, int64_t stop) const {
  const auto first = std::lower_bound(at.begin(), at.end(), start) - at.begin();
  for (int64_t i = 0; i < stop - start; i++) {
    if (first + i >= static_cast<int64_t>(at.size()) || at[first + i] != start + i) return -1;
  }
  return first;
}

Plan read_plan(const std::string& path) {
  const std::string raw_text = read_file(path, "plan", LIMIT);
  const Json raw = parse_json(raw_text, "plan", path);
  object(raw, "it", {"purpose", "target", "engine", "info", "threads", "arithmetic", "texts", "calls", "layers",
                     "cache", "timing", "loads", "answer", "schema"});
  Plan plan;
  plan.digest = sha256(raw_text);
  if (whole(raw["schema"], "schema") != SCHEMA) {
    refuse_input("a plan of another version", raw["schema"].shown(), std::to_string(SCHEMA));
  }
  plan.purpose = one_of(raw["purpose"], "purpose", {"parity", "quick parity", "load", "bench", "generate"});
  plan.target = text_of(raw["target"], "target");
  plan.engine = text_of(raw["engine"], "engine");
  if (plan.engine != "executorch") {
    refuse_input("unknown engine", plan.engine, "executorch", "execute this plan with Python's runner");
  }
  if (raw["info"].kind != Json::Kind::object) wrong("info", raw["info"].shown(), "a value of type dict");
  plan.file = text_of(raw["info"]["file"], "info.file");
  plan.threads = whole(raw["threads"], "threads");
  plan.arithmetic = text_of(raw["arithmetic"], "arithmetic");
  plan.layers = whole(raw["layers"], "layers");
  plan.loads = truth(raw["loads"], "loads");
  for (const Json& one : list(raw["texts"], "texts")) {
    plan.texts.push_back(text(one, "texts[" + std::to_string(plan.texts.size()) + "]"));
    const Text& last = plan.texts.back();
    for (int32_t id : last.ids) plan.highest = std::max<int64_t>(plan.highest, id);
    for (int32_t id : last.wanted.data) plan.highest = std::max<int64_t>(plan.highest, id);
  }
  for (const Json& one : list(raw["calls"], "calls")) {
    plan.calls.push_back(call(one, "calls[" + std::to_string(plan.calls.size()) + "]"));
  }
  for (const Json& one : list(raw["cache"], "cache")) {
    const std::string at = "cache[" + std::to_string(plan.cache.size()) + "]";
    std::vector<size_t> shape;
    Block block;
    block.data = array<float>(one, at, "float32", 4, shape);
    if (shape[0] != 2) wrong(at, std::to_string(shape[0]) + " parts", "keys and values");
    block.tokens = shape[1], block.heads = shape[2], block.size = shape[3];
    plan.cache.push_back(std::move(block));
  }
  if (raw["timing"].kind != Json::Kind::null) plan.timing = timing(raw["timing"]);
  if (raw["answer"].kind != Json::Kind::null) plan.answer = answer(raw["answer"]);
  check(plan);
  return plan;
}
