// Reading pictures: raw uint8, .npy, and PPM, JPEG, PNG (resized and cropped as Pillow does it).
#ifndef VITQ_PICTURES_H_
#define VITQ_PICTURES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace vitq {

struct InputShape {
  int64_t channels, height, width;
  int64_t bytes() const { return channels * height * width; }
};

// Any number of pictures, (N, C, H, W) uint8, from .npy, a picture or raw bytes. Throws Failure.
std::vector<uint8_t> read_pictures(const std::string& path, const InputShape& shape);

// An .npy of little-endian int32 with two dimensions, the second as given. Throws Failure.
std::vector<int32_t> read_codes(const std::string& path, int64_t classes);

}  // namespace vitq

#endif  // VITQ_PICTURES_H_
