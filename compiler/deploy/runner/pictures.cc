#include "pictures.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>

#include "decode.h"
#include "failure.h"
#include "manifest.h"
#include "npy.h"
#include "resize.h"

namespace vitq {
namespace {

constexpr int64_t kFileLimit = int64_t{1} << 31;
constexpr size_t kPictureLimit = size_t{1} << 28;
constexpr double kCropFraction = 0.875;  // of the resized picture's short side, as in the papers
constexpr int kLargestSide = 1 << 14;

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::vector<uint8_t> from_npy(const std::string& content, const std::string& path,
                              const InputShape& shape) {
  const NpyArray array = parse_npy(content, path);
  std::vector<int64_t> dims = array.shape;
  if (dims.size() == 3) dims.insert(dims.begin(), 1);
  const std::vector<int64_t> wanted{shape.channels, shape.height, shape.width};
  if (array.descr != "|u1") throw Failure(path + ": the model takes raw pixels, uint8 0 to 255");
  if (dims.size() != 4 || !std::equal(wanted.begin(), wanted.end(), dims.begin() + 1)) {
    throw Failure(path + " has another shape: the model takes N x " +
                  std::to_string(shape.channels) + " x " + std::to_string(shape.height) + " x " +
                  std::to_string(shape.width));
  }
  return {array.data.begin(), array.data.end()};
}

// A number of a PPM header; comments start with #.
int header_number(const std::string& content, size_t* at, const std::string& path) {
  while (*at < content.size() && (std::isspace(content[*at]) || content[*at] == '#')) {
    if (content[*at] == '#') *at = std::min(content.find('\n', *at), content.size() - 1);
    ++*at;
  }
  int value = 0, digits = 0;
  while (*at < content.size() && std::isdigit(content[*at]) && ++digits <= 6) {
    value = value * 10 + (content[(*at)++] - '0');
  }
  if (digits == 0 || digits > 6) throw Failure(path + ": the PPM header cannot be read");
  return value;
}

Image from_ppm(const std::string& content, const std::string& path) {
  size_t at = 2;
  Image image;
  image.width = header_number(content, &at, path);
  image.height = header_number(content, &at, path);
  if (header_number(content, &at, path) != 255) throw Failure(path + ": only 8-bit PPM is read");
  if (std::min(image.width, image.height) < 1 || std::max(image.width, image.height) > kLargestSide) {
    throw Failure(path + ": impossible size in the PPM header");
  }
  const size_t bytes = size_t{3} * image.width * image.height;
  if (at >= content.size() || content.size() - ++at < bytes) throw Failure(path + " is cut off");
  const auto* data = reinterpret_cast<const uint8_t*>(content.data()) + at;
  image.rgb.assign(data, data + bytes);
  return image;
}

// Short side to the input's size / 0.875, centre crop, planes: what calibration does.
std::vector<uint8_t> prepare(const Image& image, const InputShape& shape,
                             const std::string& path) {
  if (shape.channels != 3) throw Failure(path + ": the model takes no colour pictures");
  const int height = static_cast<int>(shape.height), width = static_cast<int>(shape.width);
  const double wanted = std::nearbyint(std::max(height, width) / kCropFraction);
  const double factor = wanted / std::min(image.width, image.height);
  const auto scaled = [&](int size, int least) {
    return std::max(static_cast<int>(std::nearbyint(size * factor)), least);
  };
  const Image fit = factor == 1 ? image
                                : resize(image, scaled(image.width, width),
                                         scaled(image.height, height));
  const int left = (fit.width - width) / 2, top = (fit.height - height) / 2;
  std::vector<uint8_t> planes(static_cast<size_t>(shape.bytes()));
  size_t to = 0;
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        planes[to++] = fit.rgb[(size_t{3} * fit.width) * (top + y) + 3 * (left + x) + c];
      }
    }
  }
  return planes;
}

}  // namespace

std::vector<uint8_t> read_pictures(const std::string& path, const InputShape& shape) {
  const std::string content = read_file(path, kFileLimit);
  std::vector<uint8_t> pixels;
  if (ends_with(path, ".npy")) {
    pixels = from_npy(content, path, shape);
  } else if (ends_with(path, ".ppm")) {
    if (content.compare(0, 2, "P6") != 0) throw Failure(path + " is no binary PPM (P6)");
    pixels = prepare(from_ppm(content, path), shape, path);
  } else if (ends_with(path, ".jpg") || ends_with(path, ".jpeg") || ends_with(path, ".png")) {
    if (content.size() > kPictureLimit) throw Failure(path + " is too large");
    pixels = prepare(decode_picture(content, path), shape, path);
  } else {
    if (content.size() % static_cast<size_t>(shape.bytes()) != 0) {
      throw Failure(path + ": " + std::to_string(content.size()) +
                    " bytes are no whole number of pictures of " + std::to_string(shape.bytes()) +
                    " (known: .npy, .ppm, .jpg, .png, raw uint8)");
    }
    pixels.assign(content.begin(), content.end());
  }
  if (pixels.empty()) throw Failure(path + " holds no pictures");
  return pixels;
}

std::vector<int32_t> read_codes(const std::string& path, int64_t classes) {
  const NpyArray array = parse_npy(read_file(path, kFileLimit), path);
  if (array.descr != "<i4" || array.shape.size() != 2 || array.shape[1] != classes) {
    throw Failure(path + " does not hold the model's integers");
  }
  std::vector<int32_t> codes(array.data.size() / sizeof(int32_t));
  std::memcpy(codes.data(), array.data.data(), array.data.size());
  return codes;
}

}  // namespace vitq
