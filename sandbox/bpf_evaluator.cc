#include "sandbox/bpf_evaluator.h"

#include <cstddef>
#include <cstring>

namespace vmm {
namespace {

std::optional<uint32_t> Arithmetic(uint16_t operation, uint32_t a, uint32_t b) {
  switch (operation) {
    case BPF_ADD: return a + b;
    case BPF_SUB: return a - b;
    case BPF_MUL: return a * b;
    case BPF_DIV: return b == 0 ? 0 : a / b;
    case BPF_OR: return a | b;
    case BPF_AND: return a & b;
    case BPF_XOR: return a ^ b;
    case BPF_LSH: return b >= 32 ? 0 : a << b;
    case BPF_RSH: return b >= 32 ? 0 : a >> b;
    case BPF_NEG: return 0u - a;
    default: return std::nullopt;
  }
}

std::optional<bool> Compare(uint16_t operation, uint32_t a, uint32_t b) {
  switch (operation) {
    case BPF_JEQ: return a == b;
    case BPF_JGT: return a > b;
    case BPF_JGE: return a >= b;
    case BPF_JSET: return (a & b) != 0;
    default: return std::nullopt;
  }
}

}  // namespace

std::optional<uint32_t> EvaluateBpf(std::span<const sock_filter> program, const seccomp_data& data) {
  uint32_t a = 0;
  uint32_t x = 0;
  uint32_t memory[BPF_MEMWORDS] = {};
  // Jumps go forward only, so this ends.
  for (size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& instruction = program[pc];
    const uint16_t code = instruction.code;
    const uint32_t operand = BPF_SRC(code) == BPF_X ? x : instruction.k;
    switch (BPF_CLASS(code)) {
      case BPF_LD:
        if (code == (BPF_LD | BPF_W | BPF_ABS)) {
          if (instruction.k % 4 != 0 || instruction.k > sizeof(data) - 4) return std::nullopt;
          std::memcpy(&a, reinterpret_cast<const char*>(&data) + instruction.k, sizeof(a));
        } else if (code == (BPF_LD | BPF_W | BPF_LEN)) {
          a = sizeof(data);
        } else if (code == (BPF_LD | BPF_IMM)) {
          a = instruction.k;
        } else if (code == (BPF_LD | BPF_MEM) && instruction.k < BPF_MEMWORDS) {
          a = memory[instruction.k];
        } else {
          return std::nullopt;
        }
        break;
      case BPF_LDX:
        if (code == (BPF_LDX | BPF_W | BPF_LEN)) {
          x = sizeof(data);
        } else if (code == (BPF_LDX | BPF_IMM)) {
          x = instruction.k;
        } else if (code == (BPF_LDX | BPF_MEM) && instruction.k < BPF_MEMWORDS) {
          x = memory[instruction.k];
        } else {
          return std::nullopt;
        }
        break;
      case BPF_ST:
      case BPF_STX:
        if (instruction.k >= BPF_MEMWORDS) return std::nullopt;
        memory[instruction.k] = BPF_CLASS(code) == BPF_ST ? a : x;
        break;
      case BPF_ALU: {
        const auto result = Arithmetic(BPF_OP(code), a, operand);
        if (!result) return std::nullopt;
        a = *result;
        break;
      }
      case BPF_JMP: {
        size_t distance = instruction.k;
        if (BPF_OP(code) != BPF_JA) {
          const auto taken = Compare(BPF_OP(code), a, operand);
          if (!taken) return std::nullopt;
          distance = *taken ? instruction.jt : instruction.jf;
        }
        if (distance >= program.size() - pc - 1) return std::nullopt;
        pc += distance;
        break;
      }
      case BPF_RET:
        if (code == (BPF_RET | BPF_K)) return instruction.k;
        if (code == (BPF_RET | BPF_A)) return a;
        return std::nullopt;
      case BPF_MISC:
        if (BPF_MISCOP(code) == BPF_TAX) {
          x = a;
        } else {
          a = x;
        }
        break;
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace vmm
