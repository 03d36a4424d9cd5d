#include "execute.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "common.h"
#include "session.h"
#include "system.h"

namespace {

constexpr int SCHEMA = 1;

// What a call saw, position by position.
struct Seen {
  std::vector<double> lse;
  std::vector<int32_t> best;
  std::vector<float> peak, at;
  size_t columns = 0;
  std::vector<std::string> digests;
};

// As numpy has it: the first NaN, else the first of the largest.
int32_t argmax(const float* logits, int64_t vocab) {
  constexpr int64_t LANES = 16;  // of a loop that compilers make vectors of
  float peaks[LANES];
  uint32_t nans[LANES] = {};
  std::fill(peaks, peaks + LANES, -INFINITY);
  int64_t i = 0;
  for (; i + LANES <= vocab; i += LANES) {
    for (int64_t j = 0; j < LANES; j++) {
      const float value = logits[i + j];
      peaks[j] = value > peaks[j] ? value : peaks[j];
      nans[j] |= value != value;
    }
  }
  for (; i < vocab; i++) {
    peaks[0] = logits[i] > peaks[0] ? logits[i] : peaks[0];
    nans[0] |= logits[i] != logits[i];
  }
  const bool nan = std::any_of(nans, nans + LANES, [](uint32_t one) { return one != 0; });
  const float peak = *std::max_element(peaks, peaks + LANES);
  const auto sought = [&](float value) { return nan ? std::isnan(value) : value == peak; };
  return static_cast<int32_t>(std::find_if(logits, logits + vocab, sought) - logits);
}

double log_sum_exp(const float* logits, int64_t vocab, double peak) {
  double parts[8] = {};  // summed in parts, as numpy does: one long sum would lose more
  for (int64_t i = 0; i < vocab; i++) parts[i % 8] += std::exp(static_cast<double>(logits[i]) - peak);
  const double sum = ((parts[0] + parts[1]) + (parts[2] + parts[3])) + ((parts[4] + parts[5]) + (parts[6] + parts[7]));
  return peak + std::log(sum);
}

// SHA-256 of logits, in which a NaN equals any other and 0 equals -0.
std::string digest(const float* logits, int64_t vocab) {
  std::vector<uint32_t> bits(static_cast<size_t>(vocab));
  std::memcpy(bits.data(), logits, bits.size() * sizeof bits[0]);
  for (uint32_t& one : bits) {
    const uint32_t magnitude = one & 0x7FFFFFFFU;
    one = !magnitude ? 0 : magnitude > 0x7F800000U ? 0x7FC00000U : one;
  }
  return sha256({reinterpret_cast<const char*>(bits.data()), bits.size() * sizeof bits[0]});
}

void look(Seen& seen, const float* logits, int64_t vocab, int32_t best, const Table& wanted, int64_t row, bool exact) {
  seen.best.push_back(best);
  seen.peak.push_back(logits[best]);
  seen.lse.push_back(log_sum_exp(logits, vocab, static_cast<double>(logits[best])));
  for (size_t i = 0; i < seen.columns; i++) {
    seen.at.push_back(logits[wanted.data[static_cast<size_t>(row) * wanted.columns + i]]);
  }
  if (exact) seen.digests.push_back(digest(logits, vocab));
}

// Feed one call; `next` is the largest logit's token of the call before, and then of this one.
Seen fed(Session& session, const Plan& plan, const Call& call, int32_t& next) {
  if (call.rewind) session.rewind(*call.rewind);
  if (call.preset) session.preset(plan.cache, *call.preset);
  const Text& text = plan.texts[call.text];
  Seen seen;
  const int64_t row = text.rows(call.looked(), call.stop);
  seen.columns = row < 0 ? 0 : text.wanted.columns;
  const auto watch = [&](const float* logits, int64_t at) {
    next = argmax(logits, session.vocab);
    if (at < call.looked()) return;
    look(seen, logits, session.vocab, next, text.wanted, row + at - call.looked(), call.exact);
  };
  if (call.look == Look::all || call.greedy) {
    if (call.stop - call.start > session.capacity - session.position) {
      session.forward(text.ids.data() + call.start, call.stop - call.start);  // refuses it
    }
    for (int64_t i = call.start; i < call.stop; i++) watch(session.forward(call.greedy ? &next : &text.ids[i], 1), i);
  } else {
    watch(session.forward(text.ids.data() + call.start, call.stop - call.start), call.stop - 1);
  }
  return seen;
}

// The next token of greedy decoding.
int32_t chosen(const float* logits, int64_t vocab) {
  const int32_t best = argmax(logits, vocab);
  if (!std::isfinite(logits[best])) {
    refuse_input("the model's logits are not numbers", std::to_string(logits[best]), "", "run `smolship parity`");
  }
  return best;
}

// A list of JSON, of what `one` makes of each.
template <class T, class F>
std::string list(const T& values, F one) {
  std::string out = "[";
  for (const auto& value : values) out += (out.size() > 1 ? "," : "") + one(value);
  return out + "]";
}

std::string array(const char* dtype, const std::vector<size_t>& shape, const void* data, size_t size) {
  const std::string sizes = list(shape, [](size_t one) { return std::to_string(one); });
  return std::string("{\"dtype\":\"") + dtype + "\",\"shape\":" + sizes + ",\"base64\":\"" + base64(data, size) + "\"}";
}

std::string json(const Seen& seen) {
  const size_t rows = seen.lse.size();
  return "{\"lse\":" + array("float64", {rows}, seen.lse.data(), 8 * rows) +
         ",\"best\":" + list(seen.best, [](int32_t one) { return std::to_string(one); }) +
         ",\"peak\":" + array("float32", {rows}, seen.peak.data(), 4 * rows) +
         ",\"at\":" + array("float32", {rows, seen.columns}, seen.at.data(), 4 * seen.at.size()) +
         ",\"digests\":" + list(seen.digests, [](const std::string& one) { return quoted(one); }) + "}";
}

std::string json(const Memory& memory) {
  const auto bytes = [](const std::optional<uint64_t>& one) { return one ? std::to_string(*one) : "null"; };
  return "{\"anonymous_bytes\":" + bytes(memory.anonymous) + ",\"file_backed_bytes\":" + bytes(memory.file_backed) +
         ",\"peak_bytes\":" + bytes(memory.peak) + "}";
}

// Whether the last two times lie within 5 % of one another.
bool agree(const std::vector<double>& times) {
  if (times.size() < 2) return false;
  const double a = times[times.size() - 2], b = times.back();
  return std::abs(a - b) <= 0.05 * std::min(a, b);
}

// Raw times, each phase once uncounted and then `repeats` times, as smolship.runtime.timing has it.
std::string timed(Session& session, const Text& text, const Timing& timing, const Progress& progress) {
  const size_t phases = timing.prompts.size() + timing.depths.size();
  const size_t rounds = static_cast<size_t>(timing.repeats) + 1;
  size_t done = 0;
  std::string ttft = "{", gaps = "{";
  const auto prefill = [&](int64_t length) {
    session.rewind(0);
    const double start = now();
    chosen(session.forward(text.ids.data(), length), session.vocab);
    return 1000 * (now() - start);
  };
  const auto filled = [&](int64_t depth) {
    session.rewind(0);
    session.forward(text.ids.data(), depth);
  };
  const auto decode = [&](int64_t depth) {
    session.rewind(depth - 1);
    int32_t next = chosen(session.forward(&text.ids[depth - 1], 1), session.vocab);
    std::vector<double> row;
    double last = now();
    while (static_cast<int64_t>(row.size()) < timing.tokens && session.position < session.capacity) {
      next = chosen(session.forward(&next, 1), session.vocab);
      const double time = now();
      row.push_back(1000 * (time - last));
      last = time;
    }
    return row;
  };
  const int64_t shallow = *std::min_element(timing.depths.begin(), timing.depths.end());
  const int64_t shortest = *std::min_element(timing.prompts.begin(), timing.prompts.end());
  std::vector<double> warmups;
  while (static_cast<int64_t>(warmups.size()) < timing.warmups && !agree(warmups)) {
    progress("warming up", warmups.size(), static_cast<size_t>(timing.warmups));
    const double start = now();
    prefill(shortest);
    filled(shallow);
    decode(shallow);
    warmups.push_back(1000 * (now() - start));
  }
  for (int64_t length : timing.prompts) {
    std::vector<double> times;
    for (size_t i = 0; i < rounds; i++) {
      progress("measuring", done++, phases * rounds);
      times.push_back(prefill(length));
    }
    times.erase(times.begin());
    ttft += (ttft.size() > 1 ? ",\"" : "\"") + std::to_string(length) + "\":" + list(times, number);
  }
  for (int64_t depth : timing.depths) {
    filled(depth);
    std::vector<std::vector<double>> rows;
    for (size_t i = 0; i < rounds; i++) {
      progress("measuring", done++, phases * rounds);
      rows.push_back(decode(depth));
    }
    rows.erase(rows.begin());
    gaps += (gaps.size() > 1 ? ",\"" : "\"") + std::to_string(depth) +
            "\":" + list(rows, [](const std::vector<double>& row) { return list(row, number); });
  }
  std::vector<std::vector<double>> sustained;
  if (timing.sustained > 0) filled(shallow);
  const double start = now();
  for (double time = start; time - start < timing.sustained;) {
    progress("decoding on and on", static_cast<size_t>(time - start), static_cast<size_t>(timing.sustained));
    const size_t count = decode(shallow).size();
    const double before = time;
    time = now();
    sustained.push_back({time - start, count / (time - before)});
  }
  return "{\"ttft_ms\":" + ttft + "},\"gaps_ms\":" + gaps + "},\"warmups_ms\":" + list(warmups, number) +
         ",\"sustained\":" + list(sustained, [](const std::vector<double>& row) { return list(row, number); }) + "}";
}

// What follows the text, as smolship.runtime.generate chooses it greedily.
std::string generated(Session& session, const Text& text, const Answer& asked, const Tokens& tell) {
  std::vector<int32_t> chosen_ids;
  std::vector<double> times;
  std::string end = "max_tokens", stop = "null";
  const auto count = static_cast<int64_t>(text.ids.size());
  int32_t next = 0;
  const double start = now();
  while (static_cast<int64_t>(chosen_ids.size()) < asked.max_tokens) {
    if (!chosen_ids.empty() && session.position == session.capacity) {
      end = "context";
      break;
    }
    const bool first = chosen_ids.empty();
    next = chosen(session.forward(first ? text.ids.data() : &next, first ? count : 1), session.vocab);
    times.push_back(now() - start);
    if (std::count(asked.stop_ids.begin(), asked.stop_ids.end(), next)) {
      end = "stop", stop = std::to_string(next);
      break;
    }
    chosen_ids.push_back(next);
    tell(next);
  }
  return "{\"prompt_tokens\":" + std::to_string(count) +
         ",\"ids\":" + list(chosen_ids, [](int32_t one) { return std::to_string(one); }) + ",\"end\":" + quoted(end) +
         ",\"stop_id\":" + stop + ",\"times\":" + list(times, number) + "}";
}

struct Opened {
  std::unique_ptr<Session> session;
  std::string loads = "null";
};

// A session; where the plan asks for loads, that of the warm one.
Opened opened(const Plan& plan, const std::string& path, double import_ms) {
  Opened found;
  if (!plan.loads) {
    found.session = std::make_unique<Session>(path);
    return found;
  }
  bool kept = false, unknown = false;
  for (const std::string& file : artifact_files(path)) {
    const std::optional<bool> dropped = drop_pages(file);
    kept |= dropped && !*dropped;
    unknown |= !dropped;
  }
  const auto load = [&] {
    const double start = now();
    const int32_t zero = 0;
    found.session = std::make_unique<Session>(path);
    found.session->forward(&zero, 1);
    return 1000 * (now() - start);
  };
  const double cold = load();
  found.session.reset();
  const double warm = load();
  found.session->rewind(0);
  found.loads = "{\"import_ms\":" + number(import_ms) + ",\"cold_ms\":" + number(cold) + ",\"warm_ms\":" +
                number(warm) + ",\"dropped\":" + (kept ? "false" : unknown ? "null" : "true") + "}";
  return found;
}

}  // namespace

std::string execute(const Plan& plan, const std::string& folder, double begun, const Progress& progress,
                    const Tokens& tell) {
  const std::string path = inside(folder, plan.file);
  regular_file(path, "artifact");
  prepare_engine(plan.threads);
  const double import_ms = 1000 * (now() - begun);
  const Memory before = read_memory();
  const Opened open = opened(plan, path, import_ms);
  Session& session = *open.session;
  if (plan.highest >= session.vocab) {
    refuse_input("the plan has tokens that the model has not", std::to_string(plan.highest),
                 "below " + std::to_string(session.vocab));
  }
  const double start = now();
  std::string seen, cache;
  int32_t next = 0;
  for (size_t i = 0; i < plan.calls.size(); i++) {
    progress(plan.calls[i].stage, i, plan.calls.size());
    seen += (i ? "," : "") + json(fed(session, plan, plan.calls[i], next));
  }
  for (int64_t layer = 0; layer < plan.layers; layer++) {
    const Block block = session.cache(layer);
    cache += (layer ? "," : "") +
             array("float32", {2, block.tokens, block.heads, block.size}, block.data.data(), 4 * block.data.size());
  }
  const std::string times = plan.timing ? timed(session, plan.texts[0], *plan.timing, progress) : "null";
  const std::string answer =  // where one is asked for
      plan.answer ? ",\"generated\":" + generated(session, plan.texts[0], *plan.answer, tell) : "";
  const Memory memory = read_memory();
  const double seconds = now() - start;
  const std::string traits = "{\"vocab\":" + std::to_string(session.vocab) +
                             ",\"capacity\":" + std::to_string(session.capacity) +
                             ",\"chunk\":" + std::to_string(session.chunk) +
                             ",\"blocks\":[" + std::to_string(Session::BLOCK) + "],\"runtime\":\"\",\"presets\":true}";
  const std::optional<std::string> cpu = cpu_model();
  return "{\"schema\":" + std::to_string(SCHEMA) + ",\"plan\":" + quoted(plan.digest) +
         ",\"artifact\":" + quoted(artifact_digest(folder, path)) + ",\"purpose\":" + quoted(plan.purpose) +
         ",\"target\":" + quoted(plan.target) + ",\"engine\":" + quoted(plan.engine) +
         ",\"arithmetic\":" + quoted(plan.arithmetic) + ",\"threads\":" + std::to_string(plan.threads) +
         ",\"traits\":" + traits + ",\"waiting\":" + quoted(waiting()) +
         ",\"versions\":{\"smolship\":" + quoted(SMOLSHIP_VERSION) + ",\"executorch\":" + quoted(engine_version()) +
         ",\"smolship-run\":" + quoted(SMOLSHIP_VERSION) + "},\"system\":" + quoted(system_name()) +
         ",\"cpu\":" + (cpu ? quoted(*cpu) : "null") + ",\"seconds\":" + number(seconds) + ",\"seen\":[" + seen +
         "],\"cache\":[" + cache + "],\"nonfinite\":[],\"loads\":" + open.loads + ",\"times\":" + times +
         answer + ",\"memory_before_load\":" + json(before) + ",\"memory\":" + json(memory) + "}\n";
}
