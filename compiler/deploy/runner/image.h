// A decoded picture.
#ifndef VITQ_IMAGE_H_
#define VITQ_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace vitq {

struct Image {
  int width = 0, height = 0, channels = 0;  // 1: L, 2: LA, 3: RGB, 4: RGBA
  std::vector<uint8_t> pixels;              // rows of interleaved pixels
  int orientation = 1;                      // EXIF's; 1: as it is stored
  bool has_vague_alpha = false;             // one colour is transparent, of more or fewer bits

  size_t count() const { return static_cast<size_t>(width) * static_cast<size_t>(height); }
  uint8_t* at(int x, int y) { return &pixels[index(x, y)]; }
  const uint8_t* at(int x, int y) const { return &pixels[index(x, y)]; }

 private:
  size_t index(int x, int y) const {
    return (static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)) *
           static_cast<size_t>(channels);
  }
};

// A picture of that size, all zero.
Image blank(int width, int height, int channels);

// Turned as its EXIF orientation says, as ImageOps.exif_transpose does it.
Image upright(const Image& image);

}  // namespace vitq

#endif  // VITQ_IMAGE_H_
