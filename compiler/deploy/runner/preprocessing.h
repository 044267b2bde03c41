// The manifest's "preprocessing": how a picture becomes a model's pixels.
#ifndef VITQ_PREPROCESSING_H_
#define VITQ_PREPROCESSING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "image.h"
#include "json.h"
#include "vitq_pixels.h"

namespace vitq {

struct Preprocessing {
  bool takes_pictures = false;  // false: a model of other inputs, or a manifest that does not say
  bool applies_orientation = false;
  vitq_preprocessing fitting = {};
};

// Reads the manifest's object; null or none is allowed. Throws Failure.
Preprocessing read_preprocessing(const Json& manifest, int64_t channels, int64_t height,
                                 int64_t width);

// (C, H, W) uint8. Throws Failure.
std::vector<uint8_t> prepare(const Preprocessing& how, const Image& image, const std::string& path);

}  // namespace vitq

#endif  // VITQ_PREPROCESSING_H_
