#include "segments.h"

#include <algorithm>
#include <array>
#include <map>

#include "failure.h"

namespace vitq {
namespace {

constexpr size_t kMostSegments = 1 << 16;
constexpr int kMostScans = 256;
constexpr uint8_t kProgressive = 0xC2, kEnd = 0xD9, kScan = 0xDA;
constexpr size_t kCoefficients = 64, kSmoothed = 10;  // libjpeg looks at the first ten

bool has_no_length(uint8_t marker) { return marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8); }

// Behind a scan's data: they hold no marker but restarts.
size_t end_of_data(const std::string& content, size_t at) {
  for (; at + 1 < content.size(); ++at) {
    const auto next = static_cast<uint8_t>(content[at + 1]);
    const bool is_data = next == 0 || (next >= 0xD0 && next <= 0xD7);
    if (static_cast<uint8_t>(content[at]) == 0xFF && !is_data) return at;
  }
  return content.size();
}

// For each component, how many low bits of each coefficient are still to come; -1: all.
class Missing {
 public:
  void start(const std::string& content, const Segment& frame) {
    const int components = frame.byte(content, 5);
    for (int i = 0; i < components; ++i) {
      bits_[frame.byte(content, 6 + 3 * static_cast<size_t>(i))].fill(-1);
    }
  }

  void take(const std::string& content, const Segment& scan) {
    const auto components = static_cast<size_t>(scan.byte(content, 0)), tail = 1 + 2 * components;
    const auto first = static_cast<size_t>(scan.byte(content, tail));
    const auto last = static_cast<size_t>(scan.byte(content, tail + 1));
    for (size_t i = 0; i < components; ++i) {
      const auto found = bits_.find(scan.byte(content, 1 + 2 * i));
      if (found == bits_.end()) continue;
      for (size_t k = first; k <= std::min(last, kCoefficients - 1); ++k) {
        found->second[k] = scan.byte(content, tail + 2) & 15;
      }
    }
  }

  bool any() const {
    return std::any_of(bits_.begin(), bits_.end(), [](const auto& component) {
      const auto& bits = component.second;
      return std::any_of(bits.begin(), bits.begin() + kSmoothed, [](int b) { return b != 0; });
    });
  }

 private:
  std::map<int, std::array<int, kCoefficients>> bits_;
};

}  // namespace

std::vector<Segment> segments_of(const std::string& content) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(content[i]); };
  std::vector<Segment> segments;
  for (size_t at = 2; at + 4 <= content.size() && segments.size() < kMostSegments;) {
    const uint8_t marker = byte(at + 1);
    if (byte(at) != 0xFF || marker == kEnd) break;
    if (marker == 0xFF || has_no_length(marker)) {
      at += marker == 0xFF ? 1 : 2;
      continue;
    }
    const size_t length = static_cast<size_t>(byte(at + 2)) << 8 | byte(at + 3);
    if (length < 2 || length > content.size() - at - 2) break;
    segments.push_back({marker, at + 4, length - 2});
    at += 2 + length;
    if (marker == kScan) at = end_of_data(content, at);
  }
  return segments;
}

void check_scans(const std::string& content, const std::string& path) {
  Missing missing;
  int scans = 0;
  for (const Segment& segment : segments_of(content)) {
    if (segment.marker == kProgressive) missing.start(content, segment);
    if (segment.marker != kScan) continue;
    missing.take(content, segment);
    ++scans;
  }
  if (scans > kMostScans) {
    throw Failure(path + ": a JPEG of " + std::to_string(scans) + " scans is not read");
  }
  if (missing.any()) {
    throw Failure(path + " cannot be read as a picture: a progressive JPEG without its last scans");
  }
}

}  // namespace vitq
