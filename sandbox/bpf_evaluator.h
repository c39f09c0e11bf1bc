// Runs a seccomp filter as a pure function: tests ask what it answers without installing it.
//
// Shapes   classic BPF as seccomp accepts it: 32-bit loads from seccomp_data, jumps forward, 16 scratch words.
// Threads  any; no state.
// Errors   nullopt: not a program that the kernel would take (bad opcode, jump or load offset, no return at the end).
// Source   Linux, Documentation/userspace-api/seccomp_filter.rst, and net/core/filter.c (which opcodes).
#ifndef VMM_SANDBOX_BPF_EVALUATOR_H_
#define VMM_SANDBOX_BPF_EVALUATOR_H_

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <optional>
#include <span>

namespace vmm {

// The action, SECCOMP_RET_* with its data.
[[nodiscard]] std::optional<uint32_t> EvaluateBpf(std::span<const sock_filter> program, const seccomp_data& data);

}  // namespace vmm

#endif  // VMM_SANDBOX_BPF_EVALUATOR_H_
