/* Classify one picture of raw pixels (channels, height, width), with nothing but vitq.h. */
#include <stdio.h>
#include <stdlib.h>

#include "vitq.h"

static int fail(const char *what) {
  fprintf(stderr, "classify: %s\n", what);
  return 1;
}

int main(int argc, char **argv) {
  const vitq_description *about = vitq_describe();
  if (argc != 2) return fail("usage: classify picture.raw");
  if (about->batch != 1) return fail("compile the model with a batch of 1");

  const size_t bytes = (size_t)about->channels * (size_t)about->height * (size_t)about->width;
  uint8_t *pixels = malloc(bytes);
  int32_t *codes = malloc((size_t)about->classes * sizeof *codes);
  FILE *file = fopen(argv[1], "rb");
  if (!pixels || !codes) return fail("no memory");
  if (!file || fread(pixels, 1, bytes, file) != bytes) return fail("cannot read the picture");
  fclose(file);

  vitq_context *model;
  if (vitq_init(&model, NULL, 0, 1) != VITQ_OK) return fail("cannot start the model");
  if (vitq_infer(model, pixels, codes) != VITQ_OK) return fail(vitq_error(model));

  int32_t best = 0;
  for (int32_t i = 1; i < about->classes; ++i) {
    if (codes[i] > codes[best]) best = i;
  }
  printf("class %d, logit %.3f\n", (int)best, about->scale * (codes[best] - about->zero_point));
  vitq_free(model);
  free(codes);
  free(pixels);
  return 0;
}
