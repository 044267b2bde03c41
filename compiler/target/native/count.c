/* A plugin for qemu-user that counts what runs between the two HINTs of runner.c.
 *
 * For each call it prints a line "count <instructions> <milli-cycles>", at the end of the program
 * "total <instructions> <milli-cycles>". The cycles are what the processor's ports would take if
 * nothing ever waited: of each basic block, the largest of
 *
 *     instructions / width, vector / pipes, vector multiplications / multipliers, memory / ports
 *
 * Arguments: width=, vector=, multiply=, memory= (a divisor each). The declarations are those of
 * qemu-plugin.h (interface version 1), which distributions do not all ship.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_t)(qemu_plugin_id_t id, struct qemu_plugin_tb* block);
typedef void (*executed_t)(unsigned int vcpu, void* data);
typedef void (*ended_t)(qemu_plugin_id_t id, void* data);
enum { ADD_U64 = 0, NO_REGISTERS = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_t);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int, void*, uint64_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn*, executed_t, int, void*);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
extern struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
extern const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, ended_t, void*);
extern void qemu_plugin_outs(const char*);

int qemu_plugin_version = 1;

enum { HINT = 0xd503201fu, BEGIN = 120, END = 121, MILLI = 1000 };
static uint64_t instructions, milli_cycles, first_instructions, first_milli_cycles;
static uint64_t width = 4, vector = 2, multiply = 1, memory = 2;

static void begin(unsigned int vcpu, void* data) {
  (void)vcpu, (void)data;
  first_instructions = instructions;
  first_milli_cycles = milli_cycles;
}

static void print(const char* what, uint64_t executed, uint64_t milli) {
  char line[80];
  snprintf(line, sizeof line, "%s %llu %llu\n", what, (unsigned long long)executed,
           (unsigned long long)milli);
  qemu_plugin_outs(line);
}

static void end(unsigned int vcpu, void* data) {
  (void)vcpu, (void)data;
  print("count", instructions - first_instructions, milli_cycles - first_milli_cycles);
}

static void total(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  print("total", instructions, milli_cycles);
}

static bool is_memory(uint32_t code) { return (code >> 25 & 5) == 4; }
static bool is_vector(uint32_t code) { return (code >> 25 & 7) == 7; }

/* MUL, MLA, MLS, S/UMULL(2), S/UMLAL(2), S/UMLSL(2), SQ(R)DMULH, also by element. */
static bool is_multiply(uint32_t code) {
  if ((code & 0x9f200c00u) == 0x0e200000u) return (code >> 12 & 15) >= 8;      /* three different */
  if ((code & 0x9f200400u) == 0x0e200400u) {                                   /* three same */
    uint32_t operation = code >> 11 & 31;
    return operation == 0x12 || operation == 0x13 || operation == 0x16;
  }
  if ((code & 0x9f000400u) == 0x0f000000u) return (code >> 12 & 15) != 14;     /* not sdot */
  return false;
}

static uint64_t largest(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  size_t count = qemu_plugin_tb_n_insns(block);
  uint64_t vectors = 0, products = 0, accesses = 0;
  (void)id;
  for (size_t i = 0; i < count; ++i) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(instruction), sizeof code);
    if (code == (HINT | BEGIN << 5))
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, begin, NO_REGISTERS, NULL);
    if (code == (HINT | END << 5))
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, end, NO_REGISTERS, NULL);
    accesses += is_memory(code);
    vectors += is_vector(code);
    products += is_vector(code) && is_multiply(code);
  }
  uint64_t slots = largest(largest(count * MILLI / width, vectors * MILLI / vector),
                           largest(products * MILLI / multiply, accesses * MILLI / memory));
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &instructions, count);
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &milli_cycles, slots);
}

static void parse(const char* argument) {
  const char* value = strchr(argument, '=');
  if (!value) return;
  uint64_t number = strtoull(value + 1, NULL, 10);
  if (!number) return;
  if (!strncmp(argument, "width=", 6)) width = number;
  if (!strncmp(argument, "vector=", 7)) vector = number;
  if (!strncmp(argument, "multiply=", 9)) multiply = number;
  if (!strncmp(argument, "memory=", 7)) memory = number;
}

int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) parse(argv[i]);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, total, NULL);
  return 0;
}
