/* See vitq_pixels.h. */
#include "vitq_pixels.h"

#include "vitq_resize.h"

static int vitq_fits(int64_t width, int64_t height) {
  return width >= 1 && height >= 1 && height <= VITQ_MOST_PIXELS / width;
}

int32_t vitq_channels(int32_t color) {
  if (color == VITQ_L) return 1;
  return color == VITQ_RGBA ? 4 : 3;
}

/* Pillow's integers of 0.299, 0.587 and 0.114 in 16 bits. */
static uint8_t vitq_luma(const uint8_t *rgb) {
  return (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

static void vitq_convert(const uint8_t *from, int32_t have, uint8_t *to, int32_t want,
                         size_t pixels) {
  for (; pixels > 0; --pixels, from += have, to += want) {
    if (want == 1) {
      to[0] = have >= 3 ? vitq_luma(from) : from[0];
      continue;
    }
    for (int32_t c = 0; c < 3; ++c) to[c] = from[have >= 3 ? c : 0];
    if (want == 4) to[3] = have % 2 == 0 ? from[have - 1] : 255;
  }
}

/* Alpha is the fourth of four channels. Pillow divides by 255 with rounding, and back without. */

static void vitq_premultiply(uint8_t *pixels, size_t count) {
  for (; count > 0; --count, pixels += 4) {
    for (int c = 0; c < 3; ++c) {
      const int32_t product = pixels[c] * pixels[3] + 128;
      pixels[c] = (uint8_t)(((product >> 8) + product) >> 8);
    }
  }
}

static void vitq_unmultiply(uint8_t *pixels, size_t count) {
  for (; count > 0; --count, pixels += 4) {
    if (pixels[3] == 0 || pixels[3] == 255) continue;
    for (int c = 0; c < 3; ++c) {
      const int32_t value = 255 * pixels[c] / pixels[3];
      pixels[c] = (uint8_t)(value > 255 ? 255 : value);
    }
  }
}

int vitq_resize(const uint8_t *pixels, int32_t width, int32_t height, int32_t channels,
                uint8_t *resized, int32_t new_width, int32_t new_height, int filter) {
  if (!pixels || !resized || (channels != 1 && channels != 3 && channels != 4) ||
      filter < VITQ_NEAREST || filter > VITQ_LANCZOS || !vitq_fits(width, height) ||
      !vitq_fits(new_width, new_height) || !vitq_fits(new_width, height)) {
    return VITQ_BAD_ARGUMENT;
  }
  const size_t count = (size_t)width * (size_t)height, bytes = count * (size_t)channels;
  if (width == new_width && height == new_height) {
    memcpy(resized, pixels, bytes);
    return VITQ_OK;
  }
  if (filter == VITQ_NEAREST) {
    vitq_resize_nearest(pixels, width, height, channels, resized, new_width, new_height);
    return VITQ_OK;
  }
  if (channels < 4) {
    return vitq_resample(pixels, width, height, channels, resized, new_width, new_height, filter);
  }
  uint8_t *opaque = (uint8_t *)malloc(bytes);
  if (!opaque) return VITQ_NO_MEMORY;
  memcpy(opaque, pixels, bytes);
  vitq_premultiply(opaque, count);
  const int code = vitq_resample(opaque, width, height, 4, resized, new_width, new_height, filter);
  free(opaque);
  if (code == VITQ_OK) vitq_unmultiply(resized, (size_t)new_width * (size_t)new_height);
  return code;
}

void vitq_resized(const vitq_preprocessing *how, int32_t width, int32_t height, int64_t *new_width,
                  int64_t *new_height) {
  const int64_t wide = how->resize_width, tall = how->resize_height;
  const int covers = how->resize == VITQ_SHORTEST;
  *new_width = width, *new_height = height;
  if (how->resize == VITQ_NONE) return;
  *new_width = wide, *new_height = tall;
  if (how->resize == VITQ_SQUASH) return;
  if (how->rounding == VITQ_ROUND_NEAREST) {
    const double down = height / (double)tall, across = width / (double)wide;
    const double ratio = (down < across) == covers ? down : across;
    const double exact_width = nearbyint(width / ratio), exact_height = nearbyint(height / ratio);
    *new_width = exact_width < 1 ? 1 : exact_width > 1e9 ? 1000000000 : (int64_t)exact_width;
    *new_height = exact_height < 1 ? 1 : exact_height > 1e9 ? 1000000000 : (int64_t)exact_height;
    return;
  }
  const int64_t across = width * tall, down = height * wide;
  if (across == down || (across < down) == covers) *new_height = height * wide / width;
  else *new_width = width * tall / height;
  if (*new_height < 1) *new_height = 1;
  if (*new_width < 1) *new_width = 1;
}

/* Where the crop begins; below 0 so many rows are padded before the picture. */
static int64_t vitq_crop_start(const vitq_preprocessing *how, int64_t size, int64_t wanted) {
  const int64_t excess = size - wanted, half = excess / 2;
  if (excess % 2 == 0) return half;
  if (how->crop_offset == VITQ_CROP_FLOOR) return excess < 0 ? half - 1 : half;
  return excess < 0 ? half : half + half % 2;
}

static void vitq_crop(const vitq_preprocessing *how, const uint8_t *pixels, int64_t width,
                      int64_t height, uint8_t *planes) {
  const int32_t channels = vitq_channels(how->color);
  const int64_t top = vitq_crop_start(how, height, how->height);
  const int64_t left = vitq_crop_start(how, width, how->width);
  for (int32_t c = 0; c < channels; ++c) {
    const int32_t from = how->color == VITQ_BGR ? 2 - c : c;
    for (int64_t y = top; y < top + how->height; ++y) {
      for (int64_t x = left; x < left + how->width; ++x) {
        const int inside = y >= 0 && y < height && x >= 0 && x < width;
        *planes++ = inside ? pixels[(y * width + x) * channels + from] : how->fill[c];
      }
    }
  }
}

int vitq_fit(const vitq_preprocessing *how, const uint8_t *pixels, int32_t width, int32_t height,
             int32_t channels, uint8_t *planes) {
  int64_t new_width, new_height;
  if (!how || !pixels || !planes || channels < 1 || channels > 4 || !vitq_fits(width, height)) {
    return VITQ_BAD_ARGUMENT;
  }
  vitq_resized(how, width, height, &new_width, &new_height);
  if (!vitq_fits(new_width, new_height) || !vitq_fits(new_width, height)) return VITQ_BAD_ARGUMENT;

  const int32_t wanted = vitq_channels(how->color);
  const size_t count = (size_t)width * (size_t)height;
  uint8_t *converted = NULL, *resized = NULL;
  int code = VITQ_OK;
  if (channels != wanted) {
    converted = (uint8_t *)malloc(count * (size_t)wanted);
    if (converted) vitq_convert(pixels, channels, converted, wanted, count);
    else code = VITQ_NO_MEMORY;
    pixels = converted;
  }
  if (code == VITQ_OK && (new_width != width || new_height != height)) {
    resized = (uint8_t *)malloc((size_t)new_width * (size_t)new_height * (size_t)wanted);
    code = resized ? vitq_resize(pixels, width, height, wanted, resized, (int32_t)new_width,
                                 (int32_t)new_height, how->filter)
                   : VITQ_NO_MEMORY;
    pixels = resized;
  }
  if (code == VITQ_OK) vitq_crop(how, pixels, new_width, new_height, planes);
  free(converted);
  free(resized);
  return code;
}
