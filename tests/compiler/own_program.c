/* A user's program: two contexts, own memory, threads, and calls that must be refused. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vitq.h"

enum { PICTURES = 2 };

static uint8_t *pixels;
static int32_t *golden;
static size_t picture_bytes, classes;

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *read_all(const char *path, size_t bytes) {
  void *data = malloc(bytes);
  FILE *file = fopen(path, "rb");
  if (!data || !file || fread(data, 1, bytes, file) != bytes) fail(path);
  fclose(file);
  return data;
}

static void check(vitq_context *context, size_t picture) {
  int32_t *codes = malloc(classes * sizeof *codes);
  if (!codes) fail("memory");
  if (vitq_infer(context, pixels + picture * picture_bytes, codes) != VITQ_OK) {
    fail(vitq_error(context));
  }
  if (memcmp(codes, golden + picture * classes, classes * sizeof *codes) != 0) fail("different");
  free(codes);
}

static void *many(void *context) {
  for (int i = 0; i < 20; ++i) check(context, (size_t)i % PICTURES);
  return NULL;
}

/* Two threads on one context: each call is right or refused. */
static volatile int was_refused;

static void *share(void *context) {
  int32_t *codes = malloc(classes * sizeof *codes);
  if (!codes) fail("memory");
  for (int i = 0; i < 100000 && !was_refused; ++i) {
    const int code = vitq_infer(context, pixels, codes);
    if (code == VITQ_BUSY) was_refused = 1;
    else if (code != VITQ_OK || memcmp(codes, golden, classes * sizeof *codes)) fail("shared");
  }
  free(codes);
  return NULL;
}

static void check_busy(vitq_context *context) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, share, context) != 0) fail("thread");
  share(context);
  pthread_join(thread, NULL);
  if (!was_refused) fail("no call was refused");
  check(context, 0);
}

static void check_words(void) {
  if (!vitq_version()[0] || !strchr(vitq_model_id(), ' ')) fail("identity");
  for (int i = -1; i < 7; ++i) {
    for (int j = 0; j < i; ++j) {
      const int known = i <= VITQ_BUSY || j <= VITQ_BUSY;
      if (known && !strcmp(vitq_strerror(i), vitq_strerror(j))) fail("strerror");
    }
  }
}

/* The picture of the third argument, prepared, is the one of the fourth. */
static void check_pictures(const char *picture, int32_t size, const char *wanted) {
  uint8_t *rgb = read_all(picture, 3 * (size_t)size * (size_t)size);
  uint8_t *ready = read_all(wanted, picture_bytes), *mine = malloc(picture_bytes);
  if (vitq_prepare(rgb, size, size, 3, mine) != VITQ_OK) fail("prepare");
  if (memcmp(mine, ready, picture_bytes) != 0) fail("prepared otherwise");
  if (vitq_resize(rgb, size, size, 3, rgb, size, size, VITQ_BICUBIC) != VITQ_OK) fail("copy");
  if (vitq_resize(rgb, 2, 2, 3, mine, 1, 1, VITQ_BOX) != VITQ_OK) fail("resize");
  for (int c = 0; c < 3; ++c) {
    const int sum = rgb[c] + rgb[3 + c] + rgb[6 + c] + rgb[9 + c];
    if (mine[c] * 4 < sum - 4 || mine[c] * 4 > sum + 4) fail("no mean");
  }
  if (vitq_prepare(rgb, size, size, 2, mine) != VITQ_BAD_ARGUMENT) fail("two channels");
  if (vitq_prepare(rgb, 1 << 20, 1 << 20, 3, mine) != VITQ_BAD_ARGUMENT) fail("too large");
  if (vitq_resize(rgb, 1, 1, 3, mine, 1, 1, 6) != VITQ_BAD_ARGUMENT) fail("no such filter");
  if (vitq_resize(rgb, 0, 1, 3, mine, 1, 1, 0) != VITQ_BAD_ARGUMENT) fail("no width");
  free(mine), free(ready), free(rgb);
}

int main(int argc, char **argv) {
  const vitq_description *about = vitq_describe();
  if (argc != 6 || about->batch != 1) return 2;
  classes = (size_t)about->classes;
  picture_bytes = (size_t)about->channels * (size_t)about->height * (size_t)about->width;
  pixels = read_all(argv[1], PICTURES * picture_bytes);
  golden = read_all(argv[2], PICTURES * classes * sizeof *golden);

  /* Own memory at an odd address, and memory of vitq_init with helpers. */
  const size_t bytes = vitq_memory_bytes(1);
  char *memory = malloc(bytes + 1);
  vitq_context *first, *second;
  if (vitq_init(&first, memory + 1, bytes, 1) != VITQ_OK) fail("init");
  if (vitq_init(&second, NULL, 0, 3) != VITQ_OK) fail("init with threads");
  for (size_t i = 0; i < PICTURES; ++i) {
    check(first, i);
    check(second, PICTURES - 1 - i);
  }

  /* Both at the same time. */
  pthread_t thread;
  if (pthread_create(&thread, NULL, many, second) != 0) fail("thread");
  many(first);
  pthread_join(thread, NULL);

  check_busy(second);
  check_words();
  check_pictures(argv[3], atoi(argv[4]), argv[5]);

  int32_t code;
  vitq_context *none;
  if (vitq_init(&none, memory, bytes - 1, 1) != VITQ_BAD_ARGUMENT || none) fail("too small");
  if (vitq_init(&none, NULL, 0, 0) != VITQ_BAD_ARGUMENT) fail("no threads");
  if (vitq_init(&none, NULL, 0, 1000) != VITQ_BAD_ARGUMENT) fail("threads");
  if (vitq_init(NULL, NULL, 0, 1) != VITQ_BAD_ARGUMENT) fail("no place");
  if (vitq_infer(NULL, pixels, &code) != VITQ_BAD_ARGUMENT) fail("no context");
  if (vitq_infer(first, NULL, &code) != VITQ_BAD_ARGUMENT) fail("no pixels");
  if (vitq_memory_bytes(-1) != 0) fail("negative threads");
  vitq_free(first);
  vitq_free(second);
  vitq_free(NULL);
  free(memory);
  free(pixels);
  free(golden);
  puts("all equal");
  return 0;
}
