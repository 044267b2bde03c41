#include "pictures.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "decode.h"
#include "failure.h"
#include "npy.h"
#include "preprocessing.h"

namespace vitq {
namespace {

constexpr int64_t kFileLimit = int64_t{1} << 31;
const std::vector<std::string> kPictureNames{".jpg", ".jpeg", ".png", ".ppm", ".pgm",
                                             ".bmp", ".gif",  ".tif", ".tiff", ".webp"};

// Whether a path ends in one of these, in any case.
bool ends_with(const std::string& path, const std::vector<std::string>& ends) {
  std::string lower;
  for (const char c : path) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::any_of(ends.begin(), ends.end(), [&](const std::string& end) {
    return lower.size() >= end.size() &&
           lower.compare(lower.size() - end.size(), end.size(), end) == 0;
  });
}

std::vector<uint8_t> from_npy(const std::string& content, const std::string& path,
                              const Manifest& manifest) {
  const NpyArray array = parse_npy(content, path);
  std::vector<int64_t> dims = array.shape;
  if (dims.size() == 3) dims.insert(dims.begin(), 1);
  const std::vector<int64_t> wanted{manifest.channels, manifest.height, manifest.width};
  if (array.descr != "|u1") throw Failure(path + ": the model takes raw pixels, uint8 0 to 255");
  if (dims.size() != 4 || !std::equal(wanted.begin(), wanted.end(), dims.begin() + 1)) {
    throw Failure(path + " has another shape: the model takes N x " +
                  std::to_string(manifest.channels) + " x " + std::to_string(manifest.height) + " x " +
                  std::to_string(manifest.width));
  }
  return {array.data.begin(), array.data.end()};
}

std::vector<uint8_t> from_raw(const std::string& content, const std::string& path,
                              const Manifest& manifest) {
  if (content.size() % static_cast<size_t>(manifest.picture_bytes()) != 0) {
    throw Failure(path + ": " + std::to_string(content.size()) +
                  " bytes are no whole number of pictures of " +
                  std::to_string(manifest.picture_bytes()) +
                  " (known: .npy, JPEG, PNG, binary PPM, raw uint8)");
  }
  return {content.begin(), content.end()};
}

}  // namespace

bool has_picture_name(const std::string& path) { return ends_with(path, kPictureNames); }

std::vector<uint8_t> read_pictures(const std::string& path, const Manifest& manifest) {
  const std::string content = read_file(path, kFileLimit);
  std::vector<uint8_t> pixels;
  if (ends_with(path, {".raw", ".u8", ".bin"})) {
    pixels = from_raw(content, path, manifest);
  } else if (content.compare(0, 6, "\x93NUMPY") == 0 || ends_with(path, {".npy"})) {
    pixels = from_npy(content, path, manifest);
  } else if (format_of(content) != Format::kUnknown || has_picture_name(path)) {
    pixels = prepare(manifest.preprocessing, decode_picture(content, path), path);
  } else {
    pixels = from_raw(content, path, manifest);
  }
  if (pixels.empty()) throw Failure(path + " holds no pictures");
  return pixels;
}

std::vector<int32_t> read_codes(const std::string& path, int64_t integers) {
  const NpyArray array = parse_npy(read_file(path, kFileLimit), path);
  if (array.descr != "<i4" || array.shape.size() != 2 || array.shape[1] != integers) {
    throw Failure(path + " does not hold the model's integers");
  }
  std::vector<int32_t> codes(array.data.size() / sizeof(int32_t));
  std::memcpy(codes.data(), array.data.data(), array.data.size());
  return codes;
}

}  // namespace vitq
