#include "resize.h"

#include <algorithm>
#include <cmath>

namespace vitq {
namespace {

constexpr int kPrecision = 32 - 8 - 2;  // bits of a coefficient, Pillow's
constexpr double kSupport = 2.0;
constexpr double kA = -0.5;

double bicubic(double x) {
  x = std::fabs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

struct Window {
  int first;
  std::vector<int> weights;
};

// Which inputs make one output, and how much each counts.
Window window_of(int position, int in, int out) {
  const double scale = static_cast<double>(in) / out, filter = std::max(scale, 1.0);
  const double support = kSupport * filter, center = (position + 0.5) * scale;
  const int first = std::max(static_cast<int>(center - support + 0.5), 0);
  const int last = std::min(static_cast<int>(center + support + 0.5), in);
  std::vector<double> exact;
  double sum = 0;
  for (int i = first; i < last; ++i) {
    exact.push_back(bicubic((i - center + 0.5) * (1.0 / filter)));
    sum += exact.back();
  }
  Window window{first, {}};
  for (double weight : exact) {
    if (sum != 0) weight /= sum;
    const double scaled = weight * (1 << kPrecision);
    window.weights.push_back(static_cast<int>(scaled + (weight < 0 ? -0.5 : 0.5)));
  }
  return window;
}

// Resizes along one axis: `count` lines, pixels `step` and lines `line` bytes apart.
void resize_axis(const uint8_t* in, uint8_t* out, int in_size, int out_size, int count,
                 int64_t in_step, int64_t in_line, int64_t out_step, int64_t out_line) {
  for (int position = 0; position < out_size; ++position) {
    const Window window = window_of(position, in_size, out_size);
    for (int line = 0; line < count; ++line) {
      for (int channel = 0; channel < 3; ++channel) {
        const uint8_t* from = in + line * in_line + window.first * in_step + channel;
        int sum = 1 << (kPrecision - 1);
        for (int weight : window.weights) {
          sum += *from * weight;
          from += in_step;
        }
        const int value = std::clamp(sum >> kPrecision, 0, 255);
        out[line * out_line + position * out_step + channel] = static_cast<uint8_t>(value);
      }
    }
  }
}

}  // namespace

Image resize(const Image& image, int width, int height) {
  Image wide{width, image.height, image.rgb};
  if (width != image.width) {
    wide.rgb.assign(size_t{3} * width * image.height, 0);
    resize_axis(image.rgb.data(), wide.rgb.data(), image.width, width, image.height, 3,
                int64_t{3} * image.width, 3, int64_t{3} * width);
  }
  if (height == image.height) return wide;
  Image result{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
  resize_axis(wide.rgb.data(), result.rgb.data(), image.height, height, width, int64_t{3} * width,
              3, int64_t{3} * width, 3);
  return result;
}

}  // namespace vitq
