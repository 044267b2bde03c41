// Reading pictures: raw uint8, .npy, and JPEG, PNG, PPM (made to fit as the manifest says).
#ifndef VITQ_PICTURES_H_
#define VITQ_PICTURES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "manifest.h"

namespace vitq {

// Any number of pictures, (N, C, H, W) uint8, from .npy, a picture or raw bytes. The first bytes
// tell which, except for names that end in .raw, .u8 or .bin: those are raw. Throws Failure.
std::vector<uint8_t> read_pictures(const std::string& path, const Manifest& manifest);

// Whether a name ends as a picture's does, in letters of any case.
bool has_picture_name(const std::string& path);

// An .npy of little-endian int32 with two dimensions, the second as given. Throws Failure.
std::vector<int32_t> read_codes(const std::string& path, int64_t integers);

}  // namespace vitq

#endif  // VITQ_PICTURES_H_
