#include "sandbox/bpf_evaluator.h"

#include <cstddef>

#include <gtest/gtest.h>

namespace vmm {
namespace {

constexpr seccomp_data kData{.nr = 42, .arch = 0xc000003e, .instruction_pointer = 0, .args = {0x1'0000'0002, 0, 0, 0, 0, 0}};

TEST(EvaluateBpfTest, LoadsComparesAndReturns) {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 42, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  EXPECT_EQ(EvaluateBpf(program, kData), SECCOMP_RET_ALLOW);
  seccomp_data other = kData;
  other.nr = 43;
  EXPECT_EQ(EvaluateBpf(program, other), SECCOMP_RET_KILL_PROCESS);
}

TEST(EvaluateBpfTest, MasksTheUpperHalfOfAnArgument) {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args) + 4),
      BPF_STMT(BPF_ST, 3),
      BPF_STMT(BPF_LD | BPF_IMM, 0),
      BPF_STMT(BPF_LD | BPF_MEM, 3),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff),
      BPF_STMT(BPF_RET | BPF_A, 0),
  };
  EXPECT_EQ(EvaluateBpf(program, kData), 1u);
}

TEST(EvaluateBpfTest, ProgramThatRunsOffItsEndHasNoAnswer) {
  const sock_filter program[] = {BPF_STMT(BPF_LD | BPF_IMM, 0)};
  EXPECT_EQ(EvaluateBpf(program, kData), std::nullopt);
}

TEST(EvaluateBpfTest, JumpPastTheEndHasNoAnswer) {
  const sock_filter program[] = {BPF_STMT(BPF_JMP | BPF_JA, 1), BPF_STMT(BPF_RET | BPF_K, 0)};
  EXPECT_EQ(EvaluateBpf(program, kData), std::nullopt);
}

TEST(EvaluateBpfTest, LoadOutsideTheDataHasNoAnswer) {
  const sock_filter program[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, sizeof(seccomp_data)), BPF_STMT(BPF_RET | BPF_K, 0)};
  EXPECT_EQ(EvaluateBpf(program, kData), std::nullopt);
}

}  // namespace
}  // namespace vmm
