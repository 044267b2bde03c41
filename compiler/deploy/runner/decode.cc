#include "decode.h"

#include <algorithm>
#include <cctype>

#include "failure.h"

namespace vitq {
namespace {

constexpr size_t kLargestFile = size_t{1} << 28;
constexpr int64_t kMostPixels = 89478485;  // where Pillow begins to suspect a bomb

// A number of a PPM header; comments start with #.
int header_number(const std::string& content, size_t* at, const std::string& path) {
  const auto is = [&](int (*kind)(int)) { return kind(static_cast<unsigned char>(content[*at])); };
  while (*at < content.size() && (is(std::isspace) || content[*at] == '#')) {
    if (content[*at] == '#') *at = std::min(content.find('\n', *at), content.size() - 1);
    ++*at;
  }
  int value = 0, digits = 0;
  while (*at < content.size() && is(std::isdigit) && ++digits <= 6) {
    value = value * 10 + (content[(*at)++] - '0');
  }
  if (digits == 0 || digits > 6) throw Failure(path + ": the PPM header cannot be read");
  return value;
}

bool starts(const std::string& content, const char* bytes) {
  return content.compare(0, std::char_traits<char>::length(bytes), bytes) == 0;
}

}  // namespace

void check_size(int64_t width, int64_t height, const std::string& path) {
  if (width < 1 || height < 1) throw Failure(path + " has an impossible size");
  if (height > kMostPixels / width) {
    throw Failure(path + " has " + std::to_string(width) + " x " + std::to_string(height) +
                  " pixels: at most " + std::to_string(kMostPixels) + " are read, make it smaller");
  }
}

Format format_of(const std::string& content) {
  if (starts(content, "\xFF\xD8\xFF")) return Format::kJpeg;
  if (starts(content, "\x89PNG\r\n\x1A\n")) return Format::kPng;
  const bool is_ppm = (starts(content, "P5") || starts(content, "P6")) && content.size() > 2 &&
                      std::isspace(static_cast<unsigned char>(content[2]));
  return is_ppm ? Format::kPpm : Format::kUnknown;
}

Image decode_ppm(const std::string& content, const std::string& path) {
  size_t at = 2;
  const int width = header_number(content, &at, path);
  const int height = header_number(content, &at, path);
  if (header_number(content, &at, path) != 255) throw Failure(path + ": only 8-bit PPM is read");
  check_size(width, height, path);
  const int channels = content[1] == '5' ? 1 : 3;
  const size_t bytes = static_cast<size_t>(channels) * width * height;
  if (at >= content.size() || content.size() - ++at < bytes) throw Failure(path + " is cut off");
  Image image = blank(width, height, channels);
  std::copy_n(content.begin() + static_cast<long>(at), bytes, image.pixels.begin());
  return image;
}

Image decode_picture(const std::string& content, const std::string& path) {
  if (content.size() > kLargestFile) throw Failure(path + " is too large");
  switch (format_of(content)) {
    case Format::kJpeg: return decode_jpeg(content, path);
    case Format::kPng: return decode_png(content, path);
    case Format::kPpm: return decode_ppm(content, path);
    case Format::kUnknown: break;
  }
  throw Failure(path + " is no JPEG, PNG or binary PPM picture");
}

}  // namespace vitq
