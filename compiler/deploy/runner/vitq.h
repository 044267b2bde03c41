/*
 * A compiled model as plain C: no TVM, no C++, no allocation in vitq_infer.
 *
 *   vitq_context *model;
 *   if (vitq_init(&model, NULL, 0, 1) == VITQ_OK && vitq_infer(model, pixels, codes) == VITQ_OK) ...
 *   vitq_free(model);
 *
 * Different contexts may be used by different threads at the same time; one context by one thread:
 * a call while another one runs on the same context returns VITQ_BUSY at once and changes nothing.
 */
#ifndef VITQ_H_
#define VITQ_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { VITQ_OK = 0, VITQ_BAD_ARGUMENT = 1, VITQ_NO_MEMORY = 2, VITQ_FAILED = 3, VITQ_BUSY = 4 };

/* Filters of vitq_resize, as Pillow's. */
enum { VITQ_NEAREST, VITQ_BOX, VITQ_BILINEAR, VITQ_HAMMING, VITQ_BICUBIC, VITQ_LANCZOS };

typedef struct vitq_context vitq_context;

typedef struct {
  int32_t batch, channels, height, width; /* of the input: uint8, raw pixels 0 to 255 */
  int32_t classes;                        /* integers for each picture, of all results */
  int32_t zero_point;                     /* logit = scale * (integer - zero_point) */
  double scale;
  size_t weights_bytes;   /* constants inside the library, read only */
  size_t arena_bytes;     /* all results between the kernels */
  size_t workspace_bytes; /* of the kernels, for each thread: a proven maximum */
} vitq_description;

const vitq_description *vitq_describe(void);

/*
 * One result of a model that returns several, or features: of a classifier the only one is "logits".
 * Of each picture's integers it has those from `first` on, `count` of them, in C order of `shape`.
 */
typedef struct {
  const char *name;
  const int32_t *shape; /* for one picture, `rank` sizes */
  int32_t first, count, rank;
  int32_t bits;       /* 8, 16 or 32: what the integers fit in */
  int32_t zero_point; /* value = scale * (integer - zero_point) */
  double scale;
} vitq_output;

/* Counted from 0; NULL behind the last. */
const vitq_output *vitq_describe_output(int32_t index);

/* The version of vitq that wrote this library; "name hash" as the bundle's manifest.json has them. */
const char *vitq_version(void);
const char *vitq_model_id(void);

/* What a code means, in English; never NULL. */
const char *vitq_strerror(int code);

/* What vitq_init needs for so many threads; all that an inference uses beside the weights. */
size_t vitq_memory_bytes(int threads);

/*
 * Makes a context in `memory` (any alignment, vitq_memory_bytes(threads) at least), or, where
 * `memory` is NULL, in memory from malloc. With threads > 1 it starts threads - 1 helpers.
 */
int vitq_init(vitq_context **context, void *memory, size_t memory_bytes, int threads);

/*
 * (batch, channels, height, width) uint8 in, (batch, classes) integers out: all results of the first
 * picture, one behind the other (vitq_describe_output), then those of the second.
 */
int vitq_infer(vitq_context *context, const uint8_t *pixels, int32_t *codes);

/* The reason of the last VITQ_FAILED; to be read before the next call on this context. */
const char *vitq_error(const vitq_context *context);

/*
 * A picture of any size, rows of 1 (gray), 3 (RGB) or 4 (RGBA) interleaved bytes, becomes the
 * (channels, height, width) of one input: colours, resize, centre crop or pad as the model was
 * calibrated with, and as `vitq-run infer` does it. VITQ_BAD_ARGUMENT, too, for a picture of more
 * than 89,478,485 pixels. Takes memory from malloc while it works.
 */
int vitq_prepare(const uint8_t *pixels, int32_t width, int32_t height, int32_t channels,
                 uint8_t *prepared);

/* The resize alone: rows of interleaved bytes in and out, bit for bit as Pillow's Image.resize. */
int vitq_resize(const uint8_t *pixels, int32_t width, int32_t height, int32_t channels,
                uint8_t *resized, int32_t new_width, int32_t new_height, int filter);

/* Ends the helpers; gives back what vitq_init took from malloc. */
void vitq_free(vitq_context *context);

#ifdef __cplusplus
}
#endif

#endif /* VITQ_H_ */
