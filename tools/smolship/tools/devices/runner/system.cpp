#include "system.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "common.h"

namespace {

struct Found {
  bool there = false, regular = false;
  uint64_t size = 0;
};

// By lseek and fcntl alone: stat's symbols are newer than the oldest C library that this is for.
Found look(const std::string& path) {
  Found found;
  if (path.find('\0') != std::string::npos) return found;
#ifdef __GLIBC__
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), 0, STATX_TYPE | STATX_SIZE, &info)) return found;
  return {true, S_ISREG(info.stx_mode), info.stx_size};
#else
  struct stat info;
  if (stat(path.c_str(), &info)) return found;
  return {true, S_ISREG(info.st_mode), static_cast<uint64_t>(info.st_size)};
#endif
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, const std::string& what)
      : number(open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (number < 0) refuse_input(what + " cannot be read", std::string(std::strerror(errno)) + ": " + path);
  }
  ~Descriptor() { close(number); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int number;
};

// All of a file of /proc, which has no size; empty where it cannot be read.
std::string text_of(const char* path) {
  std::string out;
  FILE* file = std::fopen(path, "re");
  if (!file) return out;
  char piece[4096];
  size_t size;
  while ((size = std::fread(piece, 1, sizeof piece, file))) out.append(piece, size);
  std::fclose(file);
  return out;
}

// The number of the line "Name:  123 kB", in bytes.
std::optional<uint64_t> kilobytes(const std::string& text, const std::string& name) {
  const std::string start = name + ":";
  size_t at = text.compare(0, start.size(), start) ? text.find("\n" + start) : 0;
  if (at == std::string::npos) return std::nullopt;
  at = text.find(':', at) + 1;
  while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) at++;
  uint64_t found = 0;
  const size_t first = at;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') found = 10 * found + (text[at++] - '0');
  if (at == first || text.compare(at, 3, " kB")) return std::nullopt;
  return found << 10;
}

std::optional<uint64_t> some(uint64_t value) { return value ? std::optional<uint64_t>(value) : std::nullopt; }

std::string real(const std::string& path) {
  char* found = realpath(path.c_str(), nullptr);
  std::string out = found ? found : "";
  std::free(found);
  return out;
}

void split(const std::string& path, std::string& folder, std::string& name) {
  const size_t slash = path.rfind('/');
  folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  name = slash == std::string::npos ? path : path.substr(slash + 1);
}

// Whether some bytes of a file, evenly spread, can be read without waiting for the disk.
std::optional<bool> cached(int descriptor) {
#ifdef RWF_NOWAIT
  const off_t size = lseek(descriptor, 0, SEEK_END);
  const off_t samples = size > 0 ? std::min<off_t>(std::max<off_t>(size / (8 << 20), 1), 64) : 0;
  for (off_t i = 0; i < samples; i++) {
    char byte;
    iovec place{&byte, 1};
    const off_t at = i * size / samples;
    // The system call itself: preadv2 is younger than some C libraries. Its offset is given in two halves.
    const auto low = static_cast<unsigned long>(at), high = static_cast<unsigned long>(at >> 16 >> 16);
    if (syscall(SYS_preadv2, descriptor, &place, 1UL, low, high, RWF_NOWAIT) >= 0) return true;
    if (errno != EAGAIN) return std::nullopt;  // this file system cannot tell
  }
  return false;
#else
  (void)descriptor;
  return std::nullopt;
#endif
}

}  // namespace

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

uint64_t regular_file(const std::string& path, const std::string& what) {
  const Found found = look(path);
  if (!found.there) refuse_input("no " + what, "nothing at " + path, "a file");
  if (!found.regular) refuse_input(what + " is not a regular file", path, "a regular file");
  return found.size;
}

std::string read_file(const std::string& path, const std::string& what, size_t limit) {
  const uint64_t size = regular_file(path, what);
  if (size > limit) refuse_input(what + " is too large", std::to_string(size) + " bytes in " + path);
  const Descriptor file(path, O_RDONLY, what);
  std::string out(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t some = read(file.number, out.data() + done, out.size() - done);
    if (some < 0 && errno == EINTR) continue;
    if (some < 0) refuse_input(what + " cannot be read", std::strerror(errno), "a readable file");
    if (!some) break;
    done += static_cast<size_t>(some);
  }
  out.resize(done);
  return out;
}

void write_file(const std::string& path, const std::string& content) {
  std::string folder, name;
  split(path, folder, name);
  const std::string temporary = (folder == "." ? "" : folder) + "." + name + ".partial";
  FILE* file = std::fopen(temporary.c_str(), "we");
  bool good = file && std::fwrite(content.data(), 1, content.size(), file) == content.size();
  good = file && std::fflush(file) == 0 && good && fsync(fileno(file)) == 0;
  const int error = errno;
  if (file && std::fclose(file)) good = false;
  if (good && !std::rename(temporary.c_str(), path.c_str())) return;
  const int code = good ? errno : error;
  std::remove(temporary.c_str());
  const bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  refuse_setup(full ? "the disk is full: " + path + " needs " + std::to_string(content.size()) + " bytes"
                    : "cannot write there",
               std::string(std::strerror(code)) + ": " + path, "", "free some space, or choose another folder");
}

std::string inside(const std::string& folder, const std::string& name) {
  int depth = 0;
  bool leaves = name.empty() || name[0] == '/' || name.find('\0') != std::string::npos;
  for (size_t start = 0; start <= name.size() && !leaves;) {
    const size_t slash = std::min(name.find('/', start), name.size());
    const std::string part = name.substr(start, slash - start);
    depth += part == ".." ? -1 : part.empty() || part == "." ? 0 : 1;
    leaves = depth < 0;
    start = slash + 1;
  }
  if (leaves) refuse_input("a path leaves its folder", name, "a path inside " + folder);
  const std::string path = folder + "/" + name, home = real(folder), there = real(path);
  const std::string start = home == "/" ? home : home + "/";
  if (!there.empty() && there.compare(0, start.size(), start)) {
    refuse_input("a path leaves its folder through a link", name + " -> " + there, "real files inside " + folder);
  }
  return path;
}

std::vector<std::string> artifact_files(const std::string& path) {
  std::string folder, name;
  split(path, folder, name);
  std::vector<std::string> found;
  if (DIR* listing = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(listing)) {
      const std::string one = entry->d_name;
      if (!one.compare(0, name.size(), name) && look(folder + one).regular) found.push_back(folder + one);
    }
    closedir(listing);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string artifact_digest(const std::string& folder, const std::string& path) {
  std::string record = "{", piece(1 << 20, '\0');
  for (const std::string& file : artifact_files(path)) {
    Sha256 hash;
    const Descriptor opened(file, O_RDONLY, "artifact");
    ssize_t size;
    while ((size = read(opened.number, piece.data(), piece.size())) > 0) hash.update(piece.data(), size);
    if (size < 0) refuse_input("artifact cannot be read", std::strerror(errno), "a readable file");
    std::string name = file.substr(folder.size() + 1);
    while (!name.compare(0, 2, "./")) name.erase(0, 2);
    record += (record.size() > 1 ? ", " : "") + quoted(name) + ": \"" + hash.hex() + "\"";
  }
  return sha256(record + "}");
}

Memory read_memory() {
  const std::string rollup = text_of("/proc/self/smaps_rollup"), status = text_of("/proc/self/status");
  Memory found;
  found.peak = some(kilobytes(status, "VmHWM").value_or(0));
  const auto all = kilobytes(rollup, "Rss"), anonymous = kilobytes(rollup, "Anonymous");
  if (all && anonymous) {
    found.anonymous = some(*anonymous), found.file_backed = some(*all - *anonymous);
  } else {
    found.anonymous = some(kilobytes(status, "RssAnon").value_or(0));
    found.file_backed =
        some(kilobytes(status, "RssFile").value_or(0) + kilobytes(status, "RssShmem").value_or(0));
  }
  return found;
}

std::optional<bool> drop_pages(const std::string& path) {
  const Descriptor file(path, O_RDONLY, "artifact");
  fsync(file.number);  // pages that are not on the disk yet stay
  posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED);
  const std::optional<bool> held = cached(file.number);
  posix_fadvise(file.number, 0, 0, POSIX_FADV_DONTNEED);  // looking may have read ahead
  if (!held) return std::nullopt;
  return !*held;
}

std::optional<std::string> cpu_model() {
  const std::string text = text_of("/proc/cpuinfo");
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string name = line.substr(0, colon);
    while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.pop_back();
    if (name != "model name" && name != "Model" && name != "Hardware") continue;
    const std::string value = clip(line.substr(colon + 1));
    const size_t first = value.find_first_not_of(' ');
    if (first != std::string::npos) return value.substr(first);
  }
  utsname names;
  return uname(&names) ? std::nullopt : std::optional<std::string>(names.machine);
}

std::string system_name() {
  utsname names;
  if (uname(&names)) return "unknown";
  std::string out = std::string(names.sysname) + "-" + names.release + "-" + names.machine;
#ifdef __GLIBC__
  out += std::string("-with-glibc") + gnu_get_libc_version();
#elif defined(__ANDROID__)
  out += "-with-bionic";
#endif
  return out;
}

std::string waiting() {
  const char* policy = std::getenv("OMP_WAIT_POLICY");
  std::string said = policy ? policy : "";
  said.erase(0, std::min(said.find_first_not_of(" \t"), said.size()));
  while (!said.empty() && (said.back() == ' ' || said.back() == '\t')) said.pop_back();
  for (char& c : said) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c | 32 : c);
  if (said == "passive") return "asleep";
  return std::getenv("SMOLSHIP_WAITS") ? "briefly" : "actively";
}
