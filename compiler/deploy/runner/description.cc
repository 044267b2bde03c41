#include "description.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "cpu.h"
#include "json.h"

namespace vitq {
namespace {

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line, '\0');
  return line.substr(0, line.find('\n'));
}

// The value of the first of /proc/cpuinfo's lines with that name.
std::string processor_line(const std::string& name) {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.compare(0, name.size(), name) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "";
}

std::string processor_name() {
  std::string name = first_line("/proc/device-tree/model");  // boards say what they are
  if (name.empty()) name = processor_line("model name");
  if (name.empty()) name = "part " + processor_line("CPU part");
  return name;
}

// qemu-user gives itself away by its own name, or by the processor lines of another architecture.
bool is_emulated() {
  const bool is_x86 = std::string(kArchitecture) == "x86_64";
  return first_line("/proc/self/comm").compare(0, 5, "qemu-") == 0 ||
         processor_line("vendor_id").empty() == is_x86;
}

}  // namespace

std::string describe_device(const std::string& name) {
  std::string features;
  for (const std::string& feature : processor_features()) {
    features += (features.empty() ? "" : ", ") + quoted(feature);
  }
  return "{\"name\": " + quoted(name) + ", \"architecture\": " + quoted(kArchitecture) +
         ", \"features\": [" + features + "], \"processor\": " + quoted(processor_name()) +
         ", \"cores\": " + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) +
         ", \"emulated\": " + (is_emulated() ? "true" : "false") + "}";
}

int64_t peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, 6, "VmHWM:") == 0) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  }
  return 0;
}

}  // namespace vitq
