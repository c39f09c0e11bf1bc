// What a string instruction that KVM completes without being wanted to may store: what is there.
//
// Threads  the VP's, outside the guest. Bytes that another processor changes between this and KVM's store are lost.
// Trust    registers and memory are the guest's.
#ifndef VMM_VMM_HYPERV_STRING_TARGETS_H_
#define VMM_VMM_HYPERV_STRING_TARGETS_H_

#include <cstddef>
#include <span>

#include "memory/guest_memory.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {

// `data` becomes what is in memory where the instruction at RIP, and its next iterations, are about to write elements of `bytes`
// bytes; zeros where that cannot be read, or it writes nowhere.
void LoadStringTargets(AccessRegisters registers, const GuestMemory& memory, const LevelView& view, size_t bytes,
                       std::span<std::byte> data) noexcept;

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_STRING_TARGETS_H_
