// JPEG: stb_image's entropy decoder, and behind it the arithmetic of libjpeg's defaults, which
// Pillow uses: the accurate integer inverse DCT (13-bit constants, two bits kept between the
// passes), the triangle filter for half-size chroma, and 16-bit tables for YCbCr. stb_image's own
// kernels differ from them by a step or two.
#include <algorithm>
#include <cstring>
#include <memory>

#include "decode.h"
#include "exif.h"
#include "failure.h"
#include "segments.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_SIMD
#define STBI_MAX_DIMENSIONS 65535
#include "third_party/stb_image/stb_image.h"
#pragma GCC diagnostic pop

namespace vitq {
namespace {

constexpr int kCmyk = 4;
constexpr const char* kDamaged = "it is damaged or cut off";

uint8_t clamped(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

// The inverse DCT: Loeffler, Ligtenberg, Moschytz (ICASSP 1989) in fixed point. Sums of damaged
// files' coefficients wrap and saturate at 16 bits where libjpeg-turbo's vector code does.

constexpr int kBits = 13, kKept = 2;

constexpr uint32_t fixed(double value) {
  return static_cast<uint32_t>(value * (1 << kBits) + 0.5);
}
uint32_t word(int value) { return static_cast<uint32_t>(static_cast<int16_t>(value)); }

// Eight sums that still have kBits more bits.
struct Transformed {
  uint32_t even[4], odd[4];
  int rounded(int i, int bits) const {
    const uint32_t sum = i < 4 ? even[i] + odd[i] : even[7 - i] - odd[7 - i];
    return static_cast<int32_t>(sum + (1U << (bits - 1))) >> bits;
  }
};

// Of eight coefficients that are `step` apart.
Transformed transform(const int16_t* in, int step) {
  const int c0 = in[0], c1 = in[step], c3 = in[3 * step], c4 = in[4 * step];
  const int c5 = in[5 * step], c7 = in[7 * step];
  const uint32_t x1 = word(c1), x2 = word(in[2 * step]), x3 = word(c3), x5 = word(c5);
  const uint32_t x6 = word(in[6 * step]), x7 = word(c7);
  const uint32_t turned = (x2 + x6) * fixed(0.541196100);
  const uint32_t low = turned - x6 * fixed(1.847759065), high = turned + x2 * fixed(0.765366865);
  const uint32_t sum = word(c0 + c4) << kBits, difference = word(c0 - c4) << kBits;

  const uint32_t right_sum = word(c7 + c3), left_sum = word(c5 + c1);
  const uint32_t all = (right_sum + left_sum) * fixed(1.175875602);
  const uint32_t outer = 0 - (x7 + x1) * fixed(0.899976223);
  const uint32_t inner = 0 - (x5 + x3) * fixed(2.562915447);
  const uint32_t right = all - right_sum * fixed(1.961570560);
  const uint32_t left = all - left_sum * fixed(0.390180644);
  return {{sum + high, difference + low, difference - low, sum - high},
          {x1 * fixed(1.501321110) + outer + left, x3 * fixed(3.072711026) + inner + right,
           x5 * fixed(2.053119869) + inner + left, x7 * fixed(0.298631336) + outer + right}};
}

void inverse_dct(stbi_uc* out, int stride, short block[64]) {
  int16_t columns[64];
  for (int x = 0; x < 8; ++x) {
    const Transformed found = transform(block + x, 8);
    for (int i = 0; i < 8; ++i) {
      const int value = found.rounded(i, kBits - kKept);
      columns[8 * i + x] = static_cast<int16_t>(std::clamp(value, -32768, 32767));
    }
  }
  for (int y = 0; y < 8; ++y) {
    const Transformed found = transform(columns + 8 * y, 1);
    for (int i = 0; i < 8; ++i) {
      out[y * stride + i] = clamped(found.rounded(i, kBits + kKept + 3) + 128);
    }
  }
}

// One component, smaller than the picture by whole factors.
struct Plane {
  const uint8_t* data;
  int stride, width, height, across, down;

  const uint8_t* row(int y) const {
    return data + static_cast<size_t>(std::clamp(y, 0, height - 1)) * static_cast<size_t>(stride);
  }
};

// Twice as wide: 3/4 of the near and 1/4 of the far sample. `weight` is what the samples are
// already multiplied by; the two roundings alternate, so that errors do not add up.
template <typename Sample>
void widen(Sample sample, int width, int weight, int left_bias, int right_bias, uint8_t* out) {
  const int shift = weight == 1 ? 2 : 4;
  for (int x = 0; x < width; ++x) {
    const int near = 3 * sample(x);
    const int left = x == 0 ? sample(0) : sample(x - 1);
    const int right = x == width - 1 ? sample(x) : sample(x + 1);
    out[2 * x] = static_cast<uint8_t>((near + left + left_bias) >> shift);
    out[2 * x + 1] = static_cast<uint8_t>((near + right + right_bias) >> shift);
  }
}

// Row y of the picture. Where libjpeg has no filter (or two samples only), samples are repeated.
void upsample(const Plane& plane, int y, uint8_t* out) {
  const uint8_t* near = plane.row(y / plane.down);
  const bool is_upper = y % plane.down == 0;
  const uint8_t* far = plane.row(y / plane.down + (is_upper ? -1 : 1));
  const auto both = [&](int x) { return 3 * near[x] + far[x]; };
  if (plane.across == 1 && plane.down == 1) {
    std::memcpy(out, near, static_cast<size_t>(plane.width));
  } else if (plane.across == 2 && plane.down == 1 && plane.width > 2) {
    widen([&](int x) { return int{near[x]}; }, plane.width, 1, 1, 2, out);
  } else if (plane.across == 2 && plane.down == 2 && plane.width > 2) {
    widen(both, plane.width, 4, 8, 7, out);
  } else if (plane.across == 1 && plane.down == 2) {
    for (int x = 0; x < plane.width; ++x) {
      out[x] = static_cast<uint8_t>((both(x) + (is_upper ? 1 : 2)) >> 2);
    }
  } else {
    for (int x = 0; x < plane.width * plane.across; ++x) out[x] = near[x / plane.across];
  }
}

// YCbCr to RGB in 16 fractional bits.
void to_rgb(uint8_t luma, uint8_t blue, uint8_t red, uint8_t* out) {
  constexpr int kHalf = 1 << 15;
  const int cb = blue - 128, cr = red - 128;
  out[0] = clamped(luma + ((91881 * cr + kHalf) >> 16));                 // 1.40200
  out[1] = clamped(luma + ((-22554 * cb - 46802 * cr + kHalf) >> 16));   // 0.34414, 0.71414
  out[2] = clamped(luma + ((116130 * cb + kHalf) >> 16));                // 1.77200
}

class Decoder {
 public:
  Decoder(const std::string& content, const std::string& path)
      : path_(path), state_(new stbi__jpeg) {
    std::memset(state_.get(), 0, sizeof *state_);
    stbi__start_mem(&context_, reinterpret_cast<const stbi_uc*>(content.data()),
                    static_cast<int>(content.size()));
    context_.img_n = 0;
    state_->s = &context_;
    stbi__setup_jpeg(state_.get());
    state_->idct_block_kernel = inverse_dct;
  }
  ~Decoder() { stbi__cleanup_jpeg(state_.get()); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  Image decode() {
    read();
    const int components = context_.img_n;
    Image image = blank(width(), height(), components == 1 ? 1 : 3);
    for (int i = 0; i < components; ++i) {
      const auto& part = state_->img_comp[i];
      planes_[i] = {part.data, part.w2, part.x, part.y, state_->img_h_max / part.h,
                    state_->img_v_max / part.v};
      rows_[i].resize(static_cast<size_t>(part.x) * static_cast<size_t>(planes_[i].across));
    }
    for (int y = 0; y < height(); ++y) {
      for (int i = 0; i < components; ++i) upsample(planes_[i], y, rows_[i].data());
      write_row(image.at(0, y));
    }
    return image;
  }

 private:
  int width() const { return static_cast<int>(context_.img_x); }
  int height() const { return static_cast<int>(context_.img_y); }

  [[noreturn]] void fail(const char* reason) const {
    throw Failure(path_ + " cannot be read as a picture: " + (reason ? reason : kDamaged));
  }

  // Fills the components; the sizes are looked at before memory is taken.
  void read() {
    if (!stbi__decode_jpeg_header(state_.get(), STBI__SCAN_header)) fail(stbi_failure_reason());
    check_size(width(), height(), path_);
    stbi__rewind(&context_);
    if (!stbi__decode_jpeg_image(state_.get())) fail(stbi_failure_reason());
    const stbi_uc* end = context_.img_buffer;  // behind the marker of the end, or behind the file
    const bool is_inside = end <= context_.img_buffer_end && end - context_.img_buffer_original > 2;
    if (!is_inside || end[-2] != 0xFF || end[-1] != 0xD9) fail(kDamaged);
  }

  bool is_rgb() const {
    return !state_->jfif && (state_->app14_color_transform == 0 ||
                             (state_->app14_color_transform < 0 && state_->rgb == 3));
  }

  void write_row(uint8_t* out) const {
    const uint8_t* first = rows_[0].data();
    if (context_.img_n == 1) {
      std::memcpy(out, first, static_cast<size_t>(width()));
      return;
    }
    const bool plain = context_.img_n == 3 ? is_rgb() : state_->app14_color_transform < 1;
    for (int x = 0; x < width(); ++x, out += 3) {
      const uint8_t parts[3] = {first[x], rows_[1][x], rows_[2][x]};
      if (plain) std::memcpy(out, parts, sizeof parts);
      else to_rgb(parts[0], parts[1], parts[2], out);
      if (context_.img_n == kCmyk) print(plain, rows_[3][x], out);
    }
  }

  // CMYK, inverted as Adobe stores it: multiplied by black, with Pillow's division by 255.
  static void print(bool plain, uint8_t black, uint8_t* out) {
    for (int c = 0; c < 3; ++c) {
      const int ink = plain ? 255 - out[c] : out[c];
      const int product = ink * black + 128;
      out[c] = clamped(black - (((product >> 8) + product) >> 8));
    }
  }

  const std::string path_;
  const std::unique_ptr<stbi__jpeg> state_;
  stbi__context context_;
  Plane planes_[kCmyk];
  std::vector<uint8_t> rows_[kCmyk];
};

}  // namespace

Image decode_jpeg(const std::string& content, const std::string& path) {
  check_scans(content, path);
  Image image = Decoder(content, path).decode();
  image.orientation = jpeg_orientation(content);
  return image;
}

}  // namespace vitq
