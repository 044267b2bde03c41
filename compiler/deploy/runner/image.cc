#include "image.h"

#include <cstring>

namespace vitq {

Image blank(int width, int height, int channels) {
  Image image;
  image.width = width;
  image.height = height;
  image.channels = channels;
  image.pixels.resize(image.count() * static_cast<size_t>(channels));
  return image;
}

// Orientations: 2 and 3 mirror and turn by half, 4 flips; 5 to 8 also swap the sides.
Image upright(const Image& image) {
  const int code = image.orientation;
  if (code < 2 || code > 8) return image;
  const bool swaps = code >= 5;
  const bool mirrors_x = code == 2 || code == 3 || code == 7 || code == 8;
  const bool mirrors_y = code == 3 || code == 4 || code == 6 || code == 7;
  Image result = blank(swaps ? image.height : image.width, swaps ? image.width : image.height,
                       image.channels);
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const int u = swaps ? y : x, v = swaps ? x : y;
      const int from_x = mirrors_x ? image.width - 1 - u : u;
      const int from_y = mirrors_y ? image.height - 1 - v : v;
      std::memcpy(result.at(x, y), image.at(from_x, from_y), static_cast<size_t>(image.channels));
    }
  }
  return result;
}

}  // namespace vitq
