#include "exif.h"

#include <cstdint>

#include "segments.h"

namespace vitq {
namespace {

constexpr uint32_t kOrientation = 0x0112;
constexpr size_t kEntryBytes = 12;

// Numbers of a TIFF structure, 0 behind its end.
class Tiff {
 public:
  explicit Tiff(const std::string& content)
      : content_(content), is_little_(content.compare(0, 2, "II") == 0) {}

  bool is_valid() const {
    return (is_little_ || content_.compare(0, 2, "MM") == 0) && number(2, 2) == 42;
  }

  uint32_t number(size_t at, size_t bytes) const {
    uint32_t result = 0;
    for (size_t i = 0; i < bytes; ++i) {
      const size_t place = at + (is_little_ ? bytes - 1 - i : i);
      const auto byte = place < content_.size() ? static_cast<uint8_t>(content_[place]) : uint8_t{0};
      result = result << 8 | byte;
    }
    return result;
  }

 private:
  const std::string& content_;
  const bool is_little_;
};

int of_range(uint32_t value) { return value >= 1 && value <= 8 ? static_cast<int>(value) : 0; }

}  // namespace

int tiff_orientation(const std::string& text) {
  const Tiff tiff(text);
  if (!tiff.is_valid()) return 0;
  const size_t start = tiff.number(4, 4), count = tiff.number(start, 2);
  for (size_t i = 0; i < count; ++i) {
    const size_t entry = start + 2 + i * kEntryBytes;
    if (tiff.number(entry, 2) != kOrientation) continue;
    const uint32_t kind = tiff.number(entry + 2, 2);  // 1: byte, 3: short, 4: long
    const size_t bytes = kind == 1 ? 1 : kind == 3 ? 2 : 4;
    if (tiff.number(entry + 4, 4) != 1) return 0;
    return of_range(tiff.number(entry + 8, bytes));
  }
  return 0;
}

int xmp_orientation(const std::string& xmp) {
  const std::string name = "tiff:Orientation";
  for (size_t at = 0; (at = xmp.find(name, at)) != std::string::npos;) {
    at += name.size();
    const size_t skip = xmp.compare(at, 2, "=\"") == 0 ? 2 : xmp.compare(at, 1, ">") == 0 ? 1 : 0;
    if (skip == 0 || at + skip >= xmp.size()) continue;
    const char digit = xmp[at + skip];
    if (digit >= '0' && digit <= '9') return of_range(static_cast<uint32_t>(digit - '0'));
  }
  return 0;
}

int jpeg_orientation(const std::string& content) {
  const std::string exif("Exif\0\0", 6), xmp("http://ns.adobe.com/xap/1.0/\0", 29);
  std::string tiff, text;
  for (const Segment& segment : segments_of(content)) {
    if (segment.marker == 0xDA) break;
    if (segment.marker != 0xE1) continue;
    const std::string body = content.substr(segment.start, segment.size);
    if (body.compare(0, exif.size(), exif) == 0) tiff += body.substr(exif.size());
    if (body.compare(0, xmp.size(), xmp) == 0) text = body.substr(xmp.size());
  }
  const int found = tiff_orientation(tiff);
  const int other = found > 0 ? found : xmp_orientation(text);
  return other > 0 ? other : 1;
}

}  // namespace vitq
