// Files, memory and clocks of this machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// Seconds of a clock that only goes forward.
double now();

// The whole of a regular file of at most `limit` bytes. Raises Refusal; `what` names it.
std::string read_file(const std::string& path, const std::string& what, size_t limit);
// Size in bytes of a regular file; refuses what is none without opening it.
uint64_t regular_file(const std::string& path, const std::string& what);
// Write it beside `path` under a temporary name, and rename that.
void write_file(const std::string& path, const std::string& content);

// `folder / name`, refused where it is absolute, or leaves the folder by `..` or through a link.
std::string inside(const std::string& folder, const std::string& name);
// The artifact's file and those that its name begins, sorted.
std::vector<std::string> artifact_files(const std::string& path);
// As smolship.runtime.artifact.artifact_digest has it.
std::string artifact_digest(const std::string& folder, const std::string& path);

// Bytes, as smolship.runtime.memory.read_memory has them; none where the system does not say.
struct Memory {
  std::optional<uint64_t> anonymous, file_backed, peak;
};
Memory read_memory();

// Ask the system to forget what it has cached of a file. True: it did; false: it did not; none: it does not say.
std::optional<bool> drop_pages(const std::string& path);

std::optional<std::string> cpu_model();
std::string system_name();
// How threads wait for one another, by OpenMP's setting: "briefly", "asleep" or "actively".
std::string waiting();
