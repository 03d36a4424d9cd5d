// smolship-run PLAN RESULT FOLDER: execute a plan on the ExecuTorch program in FOLDER, without Python. It says how far
// it is, and what went wrong, in the JSON lines of smolship.runtime.child on standard output; the log goes to stderr.
//
// smolship-run --self: what it is made of, as JSON.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <sys/prctl.h>
#include <unistd.h>

#include "common.h"
#include "execute.h"
#include "plan.h"
#include "session.h"
#include "system.h"

namespace {

constexpr double OFTEN = 0.1;  // seconds between two lines of progress
constexpr int FAULT = 70;

FILE* answers = stdout;

// Whoever asked is gone where it cannot be written.
void say(const std::string& line) {
  if (std::fputs((line + "\n").c_str(), answers) < 0 || std::fflush(answers)) _exit(1);
}

int failed(const char* kind, int code, const std::string& text) {
  say("{\"error\": [" + quoted(kind) + ", " + quoted(text) + "]}");
  return code;
}

int about() {
  prepare_registry();
  const auto names = [](const std::vector<std::string>& all) {
    std::string out;
    for (const std::string& one : all) out += (out.empty() ? "" : ", ") + quoted(one);
    return "[" + out + "]";
  };
  say("{\"version\": " + quoted(SMOLSHIP_VERSION) + ", \"executorch\": " + quoted(engine_version()) +
      ", \"system\": " + quoted(system_name()) + ", \"page_size\": " + std::to_string(sysconf(_SC_PAGESIZE)) +
      ", \"backends\": " + names(backends()) + ", \"operators\": " + names(operators()) + "}");
  return 0;
}

int serve(const char* plan_path, const char* result, const std::string& folder, double begun) {
  double last = -1;
  const Progress progress = [&](const std::string& what, size_t done, size_t total) {
    if (done != total && now() - last <= OFTEN) return;
    last = now();
    say("{\"progress\": [" + quoted(what) + ", " + std::to_string(done) + ", " + std::to_string(total) + "]}");
  };
  const Tokens tell = [](int32_t id) { say("{\"tokens\": [" + std::to_string(id) + "]}"); };
  try {
    const Plan plan = read_plan(plan_path);
    write_file(result, execute(plan, folder, begun, progress, tell));
    say("{\"result\": null}");
    return 0;
  } catch (const Refusal& refusal) {
    return failed(refusal.kind, refusal.code, refusal.text);
  } catch (const std::bad_alloc&) {
    return failed("SetupError", 3, "out of memory\n  to do:    close other programs, or use a larger machine");
  } catch (const std::exception& error) {
    return failed("Fault", FAULT, "a fault of smolship itself in the runner: " + clip(error.what()));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const double begun = now();
  const char* supervised = std::getenv("SMOLSHIP_SUPERVISED");
  if (supervised && !std::strcmp(supervised, "1")) {
    const pid_t supervisor = getppid();
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor) return 1;  // it ended before that
  }
  // Standard output belongs to the answers: what libraries print goes to the log.
  const int kept = dup(STDOUT_FILENO);
  if (kept >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0) answers = fdopen(kept, "w");
  if (!answers) return 1;
  std::signal(SIGPIPE, SIG_IGN);
  if (count == 2 && !std::strcmp(arguments[1], "--self")) return about();
  if (count != 4) {
    std::fputs("usage: smolship-run PLAN RESULT FOLDER\n       smolship-run --self\n", stderr);
    return 2;
  }
  return serve(arguments[1], arguments[2], arguments[3], begun);
}
