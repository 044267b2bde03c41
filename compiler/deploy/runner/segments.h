// The marked segments of a JPEG file, whatever its pixels are.
#ifndef VITQ_SEGMENTS_H_
#define VITQ_SEGMENTS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace vitq {

struct Segment {
  uint8_t marker;      // behind 0xFF
  size_t start, size;  // of what follows the length

  // A byte of it, 0 behind its end.
  int byte(const std::string& content, size_t i) const {
    return i < size ? static_cast<uint8_t>(content[start + i]) : 0;
  }
};

// Up to the end, or to where the file is damaged.
std::vector<Segment> segments_of(const std::string& content);

// Throws Failure for a progressive picture that lacks scans, which libjpeg smooths, and for one of
// so many that it takes minutes.
void check_scans(const std::string& content, const std::string& path);

}  // namespace vitq

#endif  // VITQ_SEGMENTS_H_
