/*
 * Runs the plan of vitq_plan.h (generated): every kernel in order, on tensors at fixed places.
 *
 * The kernels are TVM's code. What TVM's runtime would provide is here: the workspace of a kernel
 * comes from a stack of fixed size, a parallel loop from helpers (vitq_threads.h). The structures
 * below repeat the binary interface of apache-tvm-ffi (tvm/ffi/c_api.h, dlpack.h).
 */
#include <stdlib.h>
#include <string.h>

#include "vitq_pixels.h"

#define VITQ_ALIGNMENT 64
#define VITQ_MAX_THREADS 64

typedef struct { int32_t device_type, device_id; } vitq_device;
typedef struct { uint8_t code, bits; uint16_t lanes; } vitq_type;

typedef struct { /* DLTensor */
  void *data;
  vitq_device device;
  int32_t ndim;
  vitq_type dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} vitq_tensor;

typedef struct { /* TVMFFIAny */
  int32_t type_index;
  uint32_t padding;
  union { int64_t integer; void *pointer; } value;
} vitq_any;

enum { VITQ_CPU = 1, VITQ_TENSOR_POINTER = 7 };

typedef int vitq_kernel(void *self, const vitq_any *args, int32_t count, vitq_any *result);

/* What the generated tables are made of. */
typedef struct {
  uint8_t is_constant, code, bits, ndim;
  uint32_t shape;  /* index of the first dimension; the strides are in a table beside it */
  uint64_t offset; /* in the constants or in the arena */
} vitq_place;

typedef struct {
  const char *name;
  vitq_kernel *kernel;
  uint32_t first, count; /* its operands */
} vitq_step;

#include "vitq_plan.h"

__asm__(
    ".section .rodata\n.balign 64\n.global vitq_constants\n.hidden vitq_constants\n"
    "vitq_constants:\n.incbin \"constants.bin\"\n.previous\n");
extern const uint8_t vitq_constants[] __attribute__((visibility("hidden")));

typedef struct {
  struct vitq_context *context;
  uint8_t *base;
  size_t top;
} vitq_worker;

static _Thread_local vitq_worker *vitq_current;

#include "vitq_threads.h"

struct vitq_context {
  void *allocated; /* by vitq_init, or NULL */
  uint8_t *arena;
  const char *error;
  int threads;
  int busy; /* 1 while a call runs; only changed atomically */
  vitq_pool pool;
  vitq_worker workers[VITQ_MAX_THREADS];
  vitq_tensor tensors[VITQ_TENSORS];
};

static size_t vitq_round_up(size_t bytes) {
  return (bytes + VITQ_ALIGNMENT - 1) / VITQ_ALIGNMENT * VITQ_ALIGNMENT;
}

/* The kernels' hooks. Allocations of a kernel are nested, so freeing lowers the stack. */

static void *vitq_allocate(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  vitq_worker *worker = vitq_current;
  (void)device_type, (void)device_id, (void)code, (void)bits;
  if (bytes > VITQ_WORKSPACE_BYTES - worker->top) {
    worker->context->error = "a kernel wants more workspace than the plan has";
    return NULL;
  }
  void *result = worker->base + worker->top;
  worker->top = vitq_round_up(worker->top + bytes);
  return result;
}

static int vitq_release(int device_type, int device_id, void *pointer) {
  size_t at = (size_t)((uint8_t *)pointer - vitq_current->base);
  (void)device_type, (void)device_id;
  if (at < vitq_current->top) vitq_current->top = at;
  return 0;
}

/* A kernel adapts to any number of tasks. One for each thread, so that all can meet at barriers. */
static int vitq_launch(vitq_lambda *lambda, void *data, int tasks) {
  (void)tasks;
  return vitq_parallel(&vitq_current->context->pool, lambda, data);
}

static int vitq_barrier(int task, vitq_group *group) {
  (void)task;
  return group->tasks == 1 ? 0 : vitq_meet((vitq_pool *)group->sync_handle);
}

#define VITQ_HIDDEN __attribute__((visibility("hidden")))
VITQ_HIDDEN void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = vitq_allocate;
VITQ_HIDDEN int (*__TVMBackendFreeWorkspace)(int, int, void *) = vitq_release;
VITQ_HIDDEN int (*__TVMBackendParallelLaunch)(vitq_lambda *, void *, int) = vitq_launch;
VITQ_HIDDEN int (*__TVMBackendParallelBarrier)(int, vitq_group *) = vitq_barrier;

/* A kernel's own check of its arguments failed. */
VITQ_HIDDEN void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts,
                                                   int32_t count) {
  (void)kind;
  vitq_current->context->error = count > 0 ? parts[count - 1] : "a kernel refused its arguments";
}

const vitq_description *vitq_describe(void) { return &vitq_about; }

const vitq_output *vitq_describe_output(int32_t index) {
  return index < 0 || (size_t)index >= VITQ_OUTPUTS ? NULL : &vitq_results[index];
}

size_t vitq_memory_bytes(int threads) {
  if (threads < 1 || threads > VITQ_MAX_THREADS) return 0;
  return VITQ_ALIGNMENT + vitq_round_up(sizeof(vitq_context)) + VITQ_ARENA_BYTES +
         (size_t)threads * vitq_round_up(VITQ_WORKSPACE_BYTES);
}

static void vitq_place_tensors(vitq_context *context) {
  for (size_t i = 0; i < VITQ_TENSORS; ++i) {
    const vitq_place *place = &vitq_places[i];
    const uint8_t *base = place->is_constant ? vitq_constants : context->arena;
    vitq_tensor tensor = {(void *)(uintptr_t)(base + place->offset),
                          {VITQ_CPU, 0},
                          place->ndim,
                          {place->code, place->bits, 1},
                          (int64_t *)(uintptr_t)(vitq_shapes + place->shape),
                          (int64_t *)(uintptr_t)(vitq_strides + place->shape),
                          0};
    context->tensors[i] = tensor;
  }
}

int vitq_init(vitq_context **result, void *memory, size_t memory_bytes, int threads) {
  const size_t needed = vitq_memory_bytes(threads);
  if (!result || needed == 0) return VITQ_BAD_ARGUMENT;
  *result = NULL;
  if (memory && memory_bytes < needed) return VITQ_BAD_ARGUMENT;
  void *allocated = memory ? NULL : malloc(needed);
  if (!memory && !allocated) return VITQ_NO_MEMORY;

  uint8_t *at = (uint8_t *)vitq_round_up((uintptr_t)(memory ? memory : allocated));
  vitq_context *context = (vitq_context *)at;
  memset(context, 0, sizeof *context);
  context->allocated = allocated;
  context->threads = threads;
  context->error = "";
  context->arena = at + vitq_round_up(sizeof *context);
  for (int i = 0; i < threads; ++i) {
    context->workers[i].context = context;
    context->workers[i].base = context->arena + VITQ_ARENA_BYTES +
                               (size_t)i * vitq_round_up(VITQ_WORKSPACE_BYTES);
  }
  vitq_place_tensors(context);
  if (vitq_start(&context->pool, context->workers, threads) != 0) {
    free(allocated);
    return VITQ_NO_MEMORY;
  }
  *result = context;
  return VITQ_OK;
}

static int vitq_run_step(vitq_context *context, const vitq_step *step) {
  vitq_any args[VITQ_MAX_OPERANDS], nothing;
  memset(&nothing, 0, sizeof nothing);
  for (uint32_t i = 0; i < step->count; ++i) {
    args[i].type_index = VITQ_TENSOR_POINTER;
    args[i].padding = 0;
    args[i].value.pointer = &context->tensors[vitq_operands[step->first + i]];
  }
  return step->kernel(NULL, args, (int32_t)step->count, &nothing);
}

static int32_t vitq_integer(const void *data, size_t i, vitq_type type) {
  const int bits = type.bits;
  if (bits == 8 && type.code == 1) return ((const uint8_t *)data)[i]; /* a class */
  if (bits == 8) return ((const int8_t *)data)[i];
  return bits == 16 ? ((const int16_t *)data)[i] : ((const int32_t *)data)[i];
}

/* A result lies together for all pictures; the caller gets all results of each picture together. */
static void vitq_copy_result(const vitq_context *context, size_t index, int32_t *codes) {
  const vitq_output *result = &vitq_results[index];
  const vitq_tensor *tensor = &context->tensors[vitq_result_tensors[index]];
  const size_t count = (size_t)result->count;
  for (size_t picture = 0; picture < (size_t)vitq_about.batch; ++picture) {
    int32_t *to = codes + picture * (size_t)vitq_about.classes + result->first;
    for (size_t i = 0; i < count; ++i) {
      to[i] = vitq_integer(tensor->data, picture * count + i, tensor->dtype);
    }
  }
}

static int vitq_run_steps(vitq_context *context, const uint8_t *pixels, int32_t *codes) {
  vitq_worker *caller = vitq_current;
  int failed = 0;
  vitq_current = &context->workers[0];
  vitq_current->top = 0;
  memcpy(context->tensors[VITQ_INPUT].data, pixels, VITQ_INPUT_BYTES);
  for (size_t i = 0; i < VITQ_STEPS && !failed; ++i) {
    failed = vitq_run_step(context, &vitq_steps[i]);
  }
  for (size_t i = 0; i < VITQ_OUTPUTS && !failed; ++i) vitq_copy_result(context, i, codes);
  vitq_current = caller;
  return failed ? VITQ_FAILED : VITQ_OK;
}

int vitq_infer(vitq_context *context, const uint8_t *pixels, int32_t *codes) {
  if (!context || !pixels || !codes) return VITQ_BAD_ARGUMENT;
  if (__atomic_exchange_n(&context->busy, 1, __ATOMIC_ACQUIRE)) return VITQ_BUSY;
  const int code = vitq_run_steps(context, pixels, codes);
  __atomic_store_n(&context->busy, 0, __ATOMIC_RELEASE);
  return code;
}

int vitq_prepare(const uint8_t *pixels, int32_t width, int32_t height, int32_t channels,
                 uint8_t *prepared) {
  if (channels == 2) return VITQ_BAD_ARGUMENT;
  return vitq_fit(&vitq_how, pixels, width, height, channels, prepared);
}

const char *vitq_version(void) { return VITQ_VERSION; }

const char *vitq_model_id(void) { return VITQ_MODEL_ID; }

const char *vitq_strerror(int code) {
  switch (code) {
    case VITQ_OK: return "no error";
    case VITQ_BAD_ARGUMENT: return "an argument is missing, too small, or out of its range";
    case VITQ_NO_MEMORY: return "not enough memory, or no more threads";
    case VITQ_FAILED: return "a kernel failed; vitq_error says why";
    case VITQ_BUSY: return "another thread is using this context";
    default: return "unknown code";
  }
}

const char *vitq_error(const vitq_context *context) { return context ? context->error : ""; }

void vitq_free(vitq_context *context) {
  if (!context) return;
  vitq_stop(&context->pool);
  free(context->allocated);
}
