// Bicubic resizing, bit for bit as Pillow's Image.resize(..., BICUBIC) of 8-bit pictures.
#ifndef VITQ_RESIZE_H_
#define VITQ_RESIZE_H_

#include <cstdint>
#include <vector>

namespace vitq {

struct Image {
  int width, height;
  std::vector<uint8_t> rgb;  // rows of interleaved pixels
};

Image resize(const Image& image, int width, int height);

}  // namespace vitq

#endif  // VITQ_RESIZE_H_
