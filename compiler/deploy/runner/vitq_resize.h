/*
 * Pillow's resize of 8-bit pictures, part of vitq_pixels.c: weights in 22 fractional bits, one pass
 * for each axis, each rounded to bytes.
 */
#ifndef VITQ_RESIZE_H_
#define VITQ_RESIZE_H_

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VITQ_PRECISION 22 /* 32 - 8 - 2 bits */
#define VITQ_WEIGHTS 65536 /* kept at once: columns are made in chunks of so many */
#define VITQ_RUN 256

static const double vitq_pi = 3.14159265358979323846;

static double vitq_sinc(double x) { return x == 0.0 ? 1.0 : sin(x * vitq_pi) / (x * vitq_pi); }

static double vitq_support(int filter) {
  if (filter == VITQ_BOX) return 0.5;
  if (filter == VITQ_BICUBIC) return 2.0;
  return filter == VITQ_LANCZOS ? 3.0 : 1.0;
}

static double vitq_weigh(int filter, double x) {
  const double a = -0.5, far = fabs(x);
  switch (filter) {
    case VITQ_BOX: return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    case VITQ_BILINEAR: return far < 1.0 ? 1.0 - far : 0.0;
    case VITQ_HAMMING:
      if (far == 0.0) return 1.0;
      if (far >= 1.0) return 0.0;
      return sin(far * vitq_pi) / (far * vitq_pi) * ((double)0.54f + (double)0.46f * cos(far * vitq_pi));
    case VITQ_BICUBIC:
      if (far < 1.0) return ((a + 2.0) * far - (a + 3.0)) * far * far + 1;
      return far < 2.0 ? (((far - 5) * far + 8) * far - 4) * a : 0.0;
    default: return -3.0 <= x && x < 3.0 ? vitq_sinc(x) * vitq_sinc(x / 3) : 0.0;
  }
}

/* Which inputs make one output, and how much each counts. */
typedef struct { int32_t first, count; } vitq_window;

/* One axis of a resize; room for `chunk` windows. */
typedef struct {
  int32_t in, out, filter, capacity, chunk;
  double scale, stretch, *exact;
  int32_t *weights;
  vitq_window *windows;
} vitq_axis;

static void vitq_close_axis(vitq_axis *axis) {
  free(axis->exact);
  free(axis->weights);
  free(axis->windows);
}

static int vitq_open_axis(vitq_axis *axis, int32_t in, int32_t out, int filter) {
  axis->in = in, axis->out = out, axis->filter = filter;
  axis->scale = (double)in / out;
  axis->stretch = axis->scale < 1.0 ? 1.0 : axis->scale;
  const double needed = ceil(vitq_support(filter) * axis->stretch) * 2 + 1;
  axis->capacity = needed < in ? (int32_t)needed : in;
  axis->chunk = axis->capacity < VITQ_WEIGHTS ? VITQ_WEIGHTS / axis->capacity : 1;
  if (axis->chunk > out) axis->chunk = out;
  axis->exact = (double *)malloc((size_t)axis->capacity * sizeof *axis->exact);
  axis->weights =
      (int32_t *)malloc((size_t)axis->capacity * (size_t)axis->chunk * sizeof *axis->weights);
  axis->windows = (vitq_window *)malloc((size_t)axis->chunk * sizeof *axis->windows);
  if (axis->exact && axis->weights && axis->windows) return VITQ_OK;
  vitq_close_axis(axis);
  return VITQ_NO_MEMORY;
}

/* Makes the window of output `position` the i-th. */
static void vitq_make_window(vitq_axis *axis, int32_t position, int32_t i) {
  const double support = vitq_support(axis->filter) * axis->stretch;
  const double center = (position + 0.5) * axis->scale, step = 1.0 / axis->stretch;
  const double begin = center - support + 0.5, end = center + support + 0.5;
  const int32_t first = begin < 0 ? 0 : (int32_t)begin;
  const int32_t last = end > axis->in ? axis->in : (int32_t)end;
  int32_t *weights = axis->weights + (size_t)i * (size_t)axis->capacity;
  double sum = 0.0;
  axis->windows[i].first = first;
  axis->windows[i].count = last - first;
  for (int32_t x = 0; x < last - first; ++x) {
    axis->exact[x] = vitq_weigh(axis->filter, (x + first - center + 0.5) * step);
    sum += axis->exact[x];
  }
  for (int32_t x = 0; x < last - first; ++x) {
    const double weight = sum != 0.0 ? axis->exact[x] / sum : axis->exact[x];
    weights[x] = (int32_t)(weight * (1 << VITQ_PRECISION) + (weight < 0 ? -0.5 : 0.5));
  }
}

static uint8_t vitq_rounded(int32_t sum) {
  const int32_t value = sum >> VITQ_PRECISION;
  return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static int vitq_resize_columns(const uint8_t *in, int32_t width, int32_t height, int32_t channels,
                               uint8_t *out, int32_t new_width, int filter) {
  vitq_axis axis;
  if (vitq_open_axis(&axis, width, new_width, filter) != VITQ_OK) return VITQ_NO_MEMORY;
  for (int32_t start = 0; start < new_width; start += axis.chunk) {
    const int32_t count = new_width - start < axis.chunk ? new_width - start : axis.chunk;
    for (int32_t i = 0; i < count; ++i) vitq_make_window(&axis, start + i, i);
    for (int32_t y = 0; y < height; ++y) {
      const uint8_t *line = in + (size_t)y * (size_t)width * (size_t)channels;
      uint8_t *to = out + ((size_t)y * (size_t)new_width + (size_t)start) * (size_t)channels;
      for (int32_t i = 0; i < count; ++i) {
        const int32_t *weights = axis.weights + (size_t)i * (size_t)axis.capacity;
        const uint8_t *first = line + (size_t)axis.windows[i].first * (size_t)channels;
        for (int32_t c = 0; c < channels; ++c) {
          int32_t sum = 1 << (VITQ_PRECISION - 1);
          for (int32_t x = 0; x < axis.windows[i].count; ++x) {
            sum += first[(size_t)x * (size_t)channels + (size_t)c] * weights[x];
          }
          *to++ = vitq_rounded(sum);
        }
      }
    }
  }
  vitq_close_axis(&axis);
  return VITQ_OK;
}

/* Rows of `bytes`. */
static int vitq_resize_rows(const uint8_t *in, size_t bytes, int32_t height, uint8_t *out,
                            int32_t new_height, int filter) {
  vitq_axis axis;
  int32_t sums[VITQ_RUN];
  if (vitq_open_axis(&axis, height, new_height, filter) != VITQ_OK) return VITQ_NO_MEMORY;
  for (int32_t y = 0; y < new_height; ++y) {
    vitq_make_window(&axis, y, 0);
    const uint8_t *first = in + (size_t)axis.windows[0].first * bytes;
    for (size_t start = 0; start < bytes; start += VITQ_RUN) {
      const size_t count = bytes - start < VITQ_RUN ? bytes - start : VITQ_RUN;
      for (size_t i = 0; i < count; ++i) sums[i] = 1 << (VITQ_PRECISION - 1);
      for (int32_t row = 0; row < axis.windows[0].count; ++row) {
        const uint8_t *from = first + (size_t)row * bytes + start;
        const int32_t weight = axis.weights[row];
        for (size_t i = 0; i < count; ++i) sums[i] += from[i] * weight;
      }
      for (size_t i = 0; i < count; ++i) out[(size_t)y * bytes + start + i] = vitq_rounded(sums[i]);
    }
  }
  vitq_close_axis(&axis);
  return VITQ_OK;
}

/* Steps are added up, as Pillow does it: their rounding errors are part of the result. */
static void vitq_resize_nearest(const uint8_t *in, int32_t width, int32_t height, int32_t channels,
                                uint8_t *out, int32_t new_width, int32_t new_height) {
  const double across = (double)width / new_width, down = (double)height / new_height;
  double y = down * 0.5;
  for (int32_t row = 0; row < new_height; ++row, y += down) {
    const int32_t from_y = (int32_t)y < height ? (int32_t)y : height - 1;
    const uint8_t *line = in + (size_t)from_y * (size_t)width * (size_t)channels;
    double x = across * 0.5;
    for (int32_t column = 0; column < new_width; ++column, x += across) {
      const int32_t from_x = (int32_t)x < width ? (int32_t)x : width - 1;
      memcpy(out, line + (size_t)from_x * (size_t)channels, (size_t)channels);
      out += channels;
    }
  }
}

/* Pillow 13's rule, found by trying: rows go first where the picture loses so many more of them. */
static int vitq_rows_first(int32_t width, int32_t height, int32_t new_width, int32_t new_height) {
  return new_height < height &&
         (int64_t)height - new_height > 2 * ((int64_t)width - (int64_t)new_width);
}

/* With a filter: an axis whose size stays is left alone. */
static int vitq_resample(const uint8_t *in, int32_t width, int32_t height, int32_t channels,
                         uint8_t *out, int32_t new_width, int32_t new_height, int filter) {
  const size_t bytes = (size_t)width * (size_t)channels;
  const size_t new_bytes = (size_t)new_width * (size_t)channels;
  if (new_width == width) return vitq_resize_rows(in, bytes, height, out, new_height, filter);
  if (new_height == height) {
    return vitq_resize_columns(in, width, height, channels, out, new_width, filter);
  }
  const int rows_first = vitq_rows_first(width, height, new_width, new_height);
  uint8_t *half = (uint8_t *)malloc(rows_first ? bytes * (size_t)new_height
                                               : new_bytes * (size_t)height);
  if (!half) return VITQ_NO_MEMORY;
  int code;
  if (rows_first) {
    code = vitq_resize_rows(in, bytes, height, half, new_height, filter);
    if (code == VITQ_OK) {
      code = vitq_resize_columns(half, width, new_height, channels, out, new_width, filter);
    }
  } else {
    code = vitq_resize_columns(in, width, height, channels, half, new_width, filter);
    if (code == VITQ_OK) {
      code = vitq_resize_rows(half, new_bytes, height, out, new_height, filter);
    }
  }
  free(half);
  return code;
}

#endif /* VITQ_RESIZE_H_ */
