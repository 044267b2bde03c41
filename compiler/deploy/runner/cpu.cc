#include "cpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "failure.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace vitq {

#if defined(__aarch64__)

const char* const kArchitecture = "aarch64";

namespace {

struct Feature {
  const char* name;
  unsigned long entry;  // of the auxiliary vector
  int bit;
};

// The kernel's fixed numbers (arch/arm64/include/uapi/asm/hwcap.h).
constexpr Feature kFeatures[] = {
    {"fp", AT_HWCAP, 0},       {"asimd", AT_HWCAP, 1},     {"aes", AT_HWCAP, 3},
    {"crc32", AT_HWCAP, 7},    {"atomics", AT_HWCAP, 8},   {"fphp", AT_HWCAP, 9},
    {"asimdhp", AT_HWCAP, 10}, {"asimdrdm", AT_HWCAP, 12}, {"lrcpc", AT_HWCAP, 15},
    {"asimddp", AT_HWCAP, 20}, {"sve", AT_HWCAP, 22},      {"sve2", AT_HWCAP2, 1},
    {"svei8mm", AT_HWCAP2, 9}, {"i8mm", AT_HWCAP2, 13},    {"bf16", AT_HWCAP2, 14},
};

}  // namespace

std::set<std::string> processor_features() {
  std::set<std::string> found{kArchitecture};
  for (const Feature& feature : kFeatures) {
    if (getauxval(feature.entry) >> feature.bit & 1) found.insert(feature.name);
  }
  return found;
}

#else

#if defined(__x86_64__)
const char* const kArchitecture = "x86_64";
#else
const char* const kArchitecture = "unknown";
#endif

std::set<std::string> processor_features() {
  std::set<std::string> found{kArchitecture};
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    if (line.compare(0, 5, "flags") != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) found.insert(word);
    break;
  }
  return found;
}

#endif

int processor_count() {
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) return std::max(CPU_COUNT(&usable), 1);
  return std::max(static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)), 1);
}

void check_processor(const std::string& architecture, const std::vector<std::string>& needs,
                     const std::string& target) {
  if (architecture != kArchitecture) {
    throw Failure("the model is for " + architecture + ", this machine is " + kArchitecture,
                  kWrongDevice);
  }
  const std::set<std::string> found = processor_features();
  std::string lacking;
  for (const std::string& need : needs) {
    if (!found.count(need)) lacking += (lacking.empty() ? "" : ", ") + need;
  }
  if (!lacking.empty()) {
    throw Failure("the model was compiled for " + target + ", but this processor lacks " + lacking +
                      ": deploy it for another target",
                  kWrongDevice);
  }
}

}  // namespace vitq
