/* Calls compiled kernels without TVM, as jobs from standard input:
 *
 *     job <library> <symbol> <number of tensors>
 *     tensor <path or -> <type code> <bits> <number of axes> <extent> ...
 *
 * The last tensor is the result, written to its path; others are read (- is zeros). Tensors have
 * guard bytes behind them. Each call is enclosed in two HINT instructions, by which the counting
 * plugin (count.c) finds it.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS 16
#define MAX_AXES 8
#define MAX_NAME 1024
#define ALIGNMENT 256
#define GUARD 64
#define GUARD_BYTE 0x5a

/* DLPack and TVM's calling convention. */
typedef struct {
  void* data;
  struct { int32_t type, id; } device;
  int32_t ndim;
  struct { uint8_t code, bits; uint16_t lanes; } dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;
typedef struct { int32_t type_index; uint32_t padding; union { int64_t integer; void* pointer; }; } Any;
typedef int (*Function)(void* handle, const Any* args, int32_t count, Any* result);
typedef struct { void* sync; int32_t tasks; } Environment;
typedef int (*Lambda)(int task, Environment* environment, void* closure);
enum { CPU = 1, TENSOR_POINTER = 7 };

static void fail(const char* what, const char* name) {
  fprintf(stderr, "runner: %s: %s\n", what, name);
  exit(1);
}

static size_t rounded(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* What kernels call. */
static void* allocate(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  return aligned_alloc(ALIGNMENT, rounded(bytes));
}

static int release(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

static int launch(Lambda lambda, void* closure, int tasks) {
  Environment environment = {NULL, 1};
  (void)tasks;
  return lambda(0, &environment, closure);
}

static int barrier(int task, Environment* environment) {
  (void)task, (void)environment;
  return 0;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i], stderr);
  fputs("\n", stderr);
}

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  fprintf(stderr, "%s: %s\n", kind, message);
}

static void fill(void* library, const char* slot, void* function) {
  void** place = dlsym(library, slot);
  if (place) *place = function;
}

static void* open_library(const char* path) {
  void* library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (!library) fail("cannot load", dlerror());
  fill(library, "__TVMBackendAllocWorkspace", allocate);
  fill(library, "__TVMBackendFreeWorkspace", release);
  fill(library, "__TVMBackendParallelLaunch", launch);
  fill(library, "__TVMBackendParallelBarrier", barrier);
  return library;
}

__attribute__((noinline)) static int call(Function function, const Any* args, int32_t count) {
  Any result = {0};
  __asm__ volatile("hint #120" ::: "memory");
  int code = function(NULL, args, count, &result);
  __asm__ volatile("hint #121" ::: "memory");
  return code;
}

static size_t size_of(const Tensor* tensor) {
  size_t bytes = tensor->dtype.bits / 8;
  for (int32_t i = 0; i < tensor->ndim; ++i) bytes *= (size_t)tensor->shape[i];
  return bytes;
}

static void read_tensor(Tensor* tensor, char* path, int64_t* shape, int last) {
  int code, bits, ndim;
  if (scanf(" tensor %1023s %d %d %d", path, &code, &bits, &ndim) != 4 || ndim > MAX_AXES)
    fail("bad tensor", path);
  for (int i = 0; i < ndim; ++i)
    if (scanf("%ld", &shape[i]) != 1) fail("bad shape", path);
  *tensor = (Tensor){.device = {CPU, 0}, .ndim = ndim, .dtype = {code, bits, 1}, .shape = shape};
  size_t bytes = size_of(tensor);
  tensor->data = aligned_alloc(ALIGNMENT, rounded(bytes + GUARD));
  memset(tensor->data, last ? GUARD_BYTE : 0, bytes);
  memset((char*)tensor->data + bytes, GUARD_BYTE, GUARD);
  if (last || strcmp(path, "-") == 0) return;
  FILE* file = fopen(path, "rb");
  if (!file || fread(tensor->data, 1, bytes, file) != bytes) fail("cannot read", path);
  fclose(file);
}

static void finish(const Tensor* tensor, const char* path) {
  size_t bytes = size_of(tensor);
  const unsigned char* guard = (unsigned char*)tensor->data + bytes;
  for (int i = 0; i < GUARD; ++i)
    if (guard[i] != GUARD_BYTE) fail("written behind the result", path);
  if (strcmp(path, "-") == 0) return;
  FILE* file = fopen(path, "wb");
  if (!file || fwrite(tensor->data, 1, bytes, file) != bytes) fail("cannot write", path);
  fclose(file);
}

int main(void) {
  char library[MAX_NAME], symbol[MAX_NAME], open_path[MAX_NAME] = "";
  void* handle = NULL;
  int count;
  while (scanf(" job %1023s %1023s %d", library, symbol, &count) == 3) {
    static char paths[MAX_TENSORS][MAX_NAME];
    static int64_t shapes[MAX_TENSORS][MAX_AXES];
    Tensor tensors[MAX_TENSORS];
    Any args[MAX_TENSORS];
    if (count > MAX_TENSORS) fail("too many tensors", symbol);
    for (int i = 0; i < count; ++i) {
      read_tensor(&tensors[i], paths[i], shapes[i], i == count - 1);
      args[i] = (Any){.type_index = TENSOR_POINTER, .pointer = &tensors[i]};
    }
    if (strcmp(library, open_path) != 0) {
      if (handle) dlclose(handle);
      handle = open_library(library);
      strcpy(open_path, library);
    }
    Function function = (Function)dlsym(handle, symbol);
    if (!function) fail("no such kernel", symbol);
    if (call(function, args, count) != 0) fail("failed", symbol);
    finish(&tensors[count - 1], paths[count - 1]);
    for (int i = 0; i < count; ++i) free(tensors[i].data);
  }
  return 0;
}
