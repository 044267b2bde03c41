/*
 * From a picture to a model's pixels: colours, resize, centre crop or pad. C and C++ alike.
 *
 * Bit for bit what Pillow's convert and resize do, with the geometry that
 * quantization/graph/preprocessing.py describes.
 */
#ifndef VITQ_PIXELS_H_
#define VITQ_PIXELS_H_

#include "vitq.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VITQ_MOST_PIXELS 89478485 /* of a picture, also between the two passes of a resize */

enum { VITQ_RGB, VITQ_BGR, VITQ_L, VITQ_RGBA };
enum { VITQ_SHORTEST, VITQ_SQUASH, VITQ_LONGEST, VITQ_NONE };
enum { VITQ_ROUND_FLOOR, VITQ_ROUND_NEAREST };
enum { VITQ_CROP_HALF_EVEN, VITQ_CROP_FLOOR };

typedef struct {
  int32_t height, width; /* of the input */
  int32_t color, resize, resize_height, resize_width, rounding, filter, crop_offset;
  uint8_t fill[4]; /* for each channel, in the order of `color` */
} vitq_preprocessing;

/* How many channels a color has. */
int32_t vitq_channels(int32_t color);

/* The picture's size after resizing. */
void vitq_resized(const vitq_preprocessing *how, int32_t width, int32_t height, int64_t *new_width,
                  int64_t *new_height);

/*
 * One picture, rows of 1 (L), 2 (LA), 3 (RGB) or 4 (RGBA) interleaved bytes, into planes of the
 * input's size. VITQ_BAD_ARGUMENT for more than VITQ_MOST_PIXELS.
 */
int vitq_fit(const vitq_preprocessing *how, const uint8_t *pixels, int32_t width, int32_t height,
             int32_t channels, uint8_t *planes);

#ifdef __cplusplus
}
#endif

#endif /* VITQ_PIXELS_H_ */
