// Runs the CUDA text that TVM emits on a processor: threads are fibers, blocks come one after the
// other. Warp-wide functions wait for all 32 lanes and follow the PTX manual, element by element.
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))

struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct Place { int x, y, z; };
static Place threadIdx, blockIdx;

template <class T> static T min(T a, T b) { return a < b ? a : b; }
template <class T> static T max(T a, T b) { return a > b ? a : b; }

namespace cpu {

enum State { kReady, kBarrier, kWarp, kDone };
struct Copy { void* to; char bytes[16]; };
struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state;
  const char* op;
  int64_t args[8];
  void* pointer;
  const void* source;
  int64_t result;
  std::vector<std::vector<Copy>> groups;
};

constexpr size_t kStack = 1 << 18;
static std::vector<Thread> threads;
static ucontext_t scheduler;
static int current;

[[noreturn]] static void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

static void yield(State state) {
  const int self = current;
  threads[self].state = state;
  swapcontext(&threads[self].context, &scheduler);
}

static Thread& warp_op(const char* op, std::initializer_list<int64_t> args, void* pointer,
                       const void* source = nullptr) {
  Thread& self = threads[current];
  self.op = op;
  std::copy(args.begin(), args.end(), self.args);
  self.pointer = pointer;
  self.source = source;
  yield(kWarp);
  return self;
}

static int byte_of(int64_t word, int i, bool is_signed) {
  const int value = static_cast<int>(word >> (8 * i)) & 255;
  return is_signed ? static_cast<int8_t>(value) : value;
}

static void mma(Thread* lanes, bool a_signed, bool b_signed) {
  int a[16][32], b[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, quad = lane % 4;
    for (int i = 0; i < 16; ++i) {
      const int row = (i < 4 || (i >= 8 && i < 12)) ? group : group + 8;
      const int column = quad * 4 + (i & 3) + (i >= 8 ? 16 : 0);
      a[row][column] = byte_of(lanes[lane].args[i / 4], i & 3, a_signed);
    }
    for (int i = 0; i < 8; ++i) {
      const int row = quad * 4 + (i & 3) + (i >= 4 ? 16 : 0);
      b[row][group] = byte_of(lanes[lane].args[4 + i / 4], i & 3, b_signed);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? lane / 4 : lane / 4 + 8, column = lane % 4 * 2 + (i & 1);
      int sum = 0;
      for (int k = 0; k < 32; ++k) sum += a[row][k] * b[k][column];
      static_cast<int*>(lanes[lane].pointer)[i] += sum;
    }
  }
}

static void ldmatrix(Thread* lanes) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const char* row = static_cast<const char*>(lanes[matrix * 8 + lane / 4].source);
      std::memcpy(static_cast<int*>(lanes[lane].pointer) + matrix, row + lane % 4 * 4, 4);
    }
  }
}

static void ldmatrix_trans(Thread* lanes) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      char* to = reinterpret_cast<char*>(static_cast<int*>(lanes[lane].pointer) + matrix);
      for (int i = 0; i < 2; ++i) {
        const char* row = static_cast<const char*>(lanes[matrix * 8 + lane % 4 * 2 + i].source);
        std::memcpy(to + 2 * i, row + lane / 4 * 2, 2);
      }
    }
  }
}

// Op "wgmma_s8_<chunk>": 16 rows of this warp, args[0] columns, args[1] the warp's number.
static void wgmma(Thread* lanes) {
  const bool a_signed = lanes[0].op[6] == 's';
  const int chunk = std::atoi(lanes[0].op + 9), n = static_cast<int>(lanes[0].args[0]);
  const int warp = static_cast<int>(lanes[0].args[1]) % 4;
  const char* a = static_cast<const char*>(lanes[0].source);
  const char* b = reinterpret_cast<const char*>(lanes[0].args[2]);
  const auto at = [chunk](int row, int k) {
    return row * chunk + ((k / 16) ^ (row / (128 / chunk) % (chunk / 16))) * 16 + k % 16;
  };
  for (int lane = 0; lane < 32; ++lane) {
    int* d = static_cast<int*>(lanes[lane].pointer);
    for (int i = 0; i < n / 2; ++i) {
      const int row = 16 * warp + lane / 4 + (i & 2 ? 8 : 0);
      const int column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
      for (int k = 0; k < chunk; ++k) {
        const char x = a[at(row, k)];
        const int left = a_signed ? static_cast<int8_t>(x) : static_cast<uint8_t>(x);
        d[i] += left * static_cast<int8_t>(b[at(column, k)]);
      }
    }
  }
}

static void perform(Thread* lanes) {
  const char* op = lanes[0].op;
  for (int lane = 1; lane < 32; ++lane) {
    if (std::strcmp(lanes[lane].op, op)) fail("lanes of a warp call different functions");
  }
  if (!std::strcmp(op, "ldmatrix")) ldmatrix(lanes);
  else if (!std::strcmp(op, "ldmatrix_trans")) ldmatrix_trans(lanes);
  else if (!std::strncmp(op, "wgmma", 5)) wgmma(lanes);
  else if (!std::strcmp(op, "shuffle")) {
    for (int l = 0; l < 32; ++l) lanes[l].result = lanes[l ^ lanes[l].args[1]].args[0];
  } else {
    mma(lanes, op[4] == 's', op[6] == 's');
  }
  for (int lane = 0; lane < 32; ++lane) lanes[lane].state = kReady;
}

template <class Kernel>
static void start(unsigned low, unsigned high) {
  (*reinterpret_cast<Kernel*>((static_cast<uint64_t>(high) << 32) | low))();
  yield(kDone);
}

template <class Kernel>
static void run_block(int count, Kernel& kernel) {
  const auto address = reinterpret_cast<uint64_t>(&kernel);
  threads.resize(count);
  for (Thread& thread : threads) {
    if (!thread.stack) thread.stack.reset(new char[kStack]);
    thread.state = kReady;
    thread.groups.assign(1, {});
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, reinterpret_cast<void (*)()>(start<Kernel>), 2,
                static_cast<unsigned>(address), static_cast<unsigned>(address >> 32));
  }
  for (;;) {
    bool moved = false;
    int at_barrier = 0, done = 0;
    for (current = 0; current < count; ++current) {
      if (threads[current].state != kReady) continue;
      threadIdx = {current, 0, 0};
      swapcontext(&scheduler, &threads[current].context);
      moved = true;
    }
    for (int warp = 0; warp < count / 32; ++warp) {
      int waiting = 0;
      for (int l = 0; l < 32; ++l) waiting += threads[32 * warp + l].state == kWarp;
      if (waiting == 32) {
        perform(&threads[32 * warp]);
        moved = true;
      }
    }
    for (const Thread& thread : threads) {
      at_barrier += thread.state == kBarrier;
      done += thread.state == kDone;
    }
    if (done == count) return;
    if (at_barrier == count) {
      for (Thread& thread : threads) thread.state = kReady;
      moved = true;
    }
    if (!moved) fail("threads wait for each other");
  }
}

template <class Kernel>
static void run_grid(const int* blocks, int count, signed char* shared, size_t size,
                     Kernel kernel) {
  for (int z = 0; z < blocks[2]; ++z) {
    for (int y = 0; y < blocks[1]; ++y) {
      for (int x = 0; x < blocks[0]; ++x) {
        blockIdx = {x, y, z};
        std::memset(shared, 0xA5, size);
        run_block(count, kernel);
      }
    }
  }
}

}  // namespace cpu

static void __syncthreads() { cpu::yield(cpu::kBarrier); }

#define VITQ_MMA(signs)                                                                    \
  static void vitq_mma_##signs(int* d, int a0, int a1, int a2, int a3, int b0, int b1) {   \
    cpu::warp_op("mma_" #signs, {a0, a1, a2, a3, b0, b1}, d);                              \
  }
VITQ_MMA(s8s8)
VITQ_MMA(u8s8)
VITQ_MMA(s8u8)
VITQ_MMA(u8u8)

#define VITQ_WGMMA(sign, n, chunk)                                                              \
  static void vitq_wgmma_##sign##s8_n##n##_k##chunk(int* d, const void* a, const void* b) {     \
    cpu::warp_op("wgmma_" #sign "_" #chunk,                                                     \
                 {n, threadIdx.x / 32, reinterpret_cast<int64_t>(b)}, d, a);                    \
  }
#define VITQ_WGMMA_CHUNKS(sign, n) VITQ_WGMMA(sign, n, 64) VITQ_WGMMA(sign, n, 128)
#define VITQ_WGMMA_ALL(sign)                                                                    \
  VITQ_WGMMA_CHUNKS(sign, 32)                                                                   \
  VITQ_WGMMA_CHUNKS(sign, 64) VITQ_WGMMA_CHUNKS(sign, 96) VITQ_WGMMA_CHUNKS(sign, 128)          \
  VITQ_WGMMA_CHUNKS(sign, 192) VITQ_WGMMA_CHUNKS(sign, 256)
VITQ_WGMMA_ALL(s8)
VITQ_WGMMA_ALL(u8)
static void vitq_wgmma_wait_16(int*) {}
static void vitq_wgmma_wait_32(int*) {}
static void vitq_wgmma_wait_48(int*) {}
static void vitq_wgmma_wait_64(int*) {}
static void vitq_wgmma_wait_96(int*) {}
static void vitq_wgmma_wait_128(int*) {}
static void vitq_wgmma_let_1() {}
static void vitq_wgmma_let_2() {}
static void vitq_fence_async() {}
static void vitq_sync_warp() {}

static void vitq_ldmatrix(int* d, const void* p) { cpu::warp_op("ldmatrix", {}, d, p); }
static void vitq_ldmatrix_trans(int* d, const void* p) {
  cpu::warp_op("ldmatrix_trans", {}, d, p);
}
static void vitq_copy16(void* to, const void* from) {
  cpu::Copy copy{to, {}};
  std::memcpy(copy.bytes, from, 16);
  cpu::threads[cpu::current].groups.back().push_back(copy);
}
static void vitq_commit() { cpu::threads[cpu::current].groups.emplace_back(); }
static void vitq_start_next() {}
static void vitq_await_inputs() {}
static void vitq_reserve(const void*) {}
static void cpu_wait(size_t pending) {
  auto& groups = cpu::threads[cpu::current].groups;  // the last one is open
  while (groups.size() > pending + 1) {
    for (const cpu::Copy& copy : groups.front()) std::memcpy(copy.to, copy.bytes, 16);
    groups.erase(groups.begin());
  }
}
static void vitq_wait_0() { cpu_wait(0); }
static void vitq_wait_1() { cpu_wait(1); }
static void vitq_wait_2() { cpu_wait(2); }
static int vitq_shuffle32(int value, int mask) {
  return static_cast<int>(cpu::warp_op("shuffle", {value, mask}, nullptr).result);
}
static long long vitq_shuffle64(long long value, int mask) {
  return cpu::warp_op("shuffle", {value, mask}, nullptr).result;
}
static int vitq_permute(int low, int high, int selector) {
  const uint64_t pair = (static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32) |
                        static_cast<uint32_t>(low);
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) {
    word |= static_cast<uint32_t>((pair >> (8 * ((selector >> (4 * i)) & 7))) & 255) << (8 * i);
  }
  return static_cast<int>(word);
}
static int vitq_pick(int word, int place) {
  const uint32_t pair = static_cast<uint32_t>(word);
  return static_cast<int>((pair >> (31 - place) & 1) ? pair >> 8 : pair);
}
static int vitq_mad_high(int value, int multiplier, int low, int high) {
  const int64_t addend = (static_cast<int64_t>(high) << 32) | static_cast<uint32_t>(low);
  return static_cast<int>((static_cast<int64_t>(value) * multiplier + addend) >> 32);
}
static int vitq_mad_high_unsigned(uint32_t value, uint32_t multiplier, uint32_t low, uint32_t high) {
  const uint64_t addend = (static_cast<uint64_t>(high) << 32) | low;
  return static_cast<int>((static_cast<uint64_t>(value) * multiplier + addend) >> 32);
}
static int vitq_limit(int value, int high) {
  const int below = value < high ? value : high;
  return below > 0 ? below : 0;
}
static uint32_t clamped(int value, int low, int high, int place) {
  const int inside = value < low ? low : value > high ? high : value;
  return (static_cast<uint32_t>(inside) & (high - low)) << place;
}
static int vitq_pack_s8(int a, int b, int c, int d) {
  return static_cast<int>(clamped(a, -128, 127, 0) | clamped(b, -128, 127, 8) |
                          clamped(c, -128, 127, 16) | clamped(d, -128, 127, 24));
}
static int vitq_pack_u8(int a, int b, int c, int d) {
  return static_cast<int>(clamped(a, 0, 255, 0) | clamped(b, 0, 255, 8) | clamped(c, 0, 255, 16) |
                          clamped(d, 0, 255, 24));
}
static int vitq_pack_s16(int a, int b) {
  return static_cast<int>(clamped(a, -32768, 32767, 0) | clamped(b, -32768, 32767, 16));
}
static int vitq_leading_zeros(long long value) { return __builtin_clzll(value); }
