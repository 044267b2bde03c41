/*
 * A compiled model as plain C: no TVM, no C++, no allocation after vitq_init.
 *
 *   vitq_context *model;
 *   if (vitq_init(&model, NULL, 0, 1) == VITQ_OK && vitq_infer(model, pixels, codes) == VITQ_OK) ...
 *   vitq_free(model);
 *
 * Different contexts may be used by different threads at the same time; one context by one thread.
 */
#ifndef VITQ_H_
#define VITQ_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { VITQ_OK = 0, VITQ_BAD_ARGUMENT = 1, VITQ_NO_MEMORY = 2, VITQ_FAILED = 3 };

typedef struct vitq_context vitq_context;

typedef struct {
  int32_t batch, channels, height, width; /* of the input: uint8, raw pixels 0 to 255 */
  int32_t classes;                        /* integers for each picture */
  int32_t zero_point;                     /* logit = scale * (integer - zero_point) */
  double scale;
  size_t weights_bytes;   /* constants inside the library, read only */
  size_t arena_bytes;     /* all results between the kernels */
  size_t workspace_bytes; /* of the kernels, for each thread: a proven maximum */
} vitq_description;

const vitq_description *vitq_describe(void);

/* What vitq_init needs for so many threads; all that an inference uses beside the weights. */
size_t vitq_memory_bytes(int threads);

/*
 * Makes a context in `memory` (any alignment, vitq_memory_bytes(threads) at least), or, where
 * `memory` is NULL, in memory from malloc. With threads > 1 it starts threads - 1 helpers.
 */
int vitq_init(vitq_context **context, void *memory, size_t memory_bytes, int threads);

/* (batch, channels, height, width) uint8 in, (batch, classes) integers out. */
int vitq_infer(vitq_context *context, const uint8_t *pixels, int32_t *codes);

/* The reason of the last VITQ_FAILED. */
const char *vitq_error(const vitq_context *context);

/* Ends the helpers; gives back what vitq_init took from malloc. */
void vitq_free(vitq_context *context);

#ifdef __cplusplus
}
#endif

#endif /* VITQ_H_ */
