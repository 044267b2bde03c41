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

int main(int argc, char **argv) {
  const vitq_description *about = vitq_describe();
  if (argc != 3 || about->batch != 1) return 2;
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
