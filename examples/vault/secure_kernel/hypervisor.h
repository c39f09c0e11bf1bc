// The secure kernel's side of the Hyper-V interface: registers, hypercalls, the intercept message.
//
// Shapes   one processor; the first 4 GiB are mapped to themselves.
// Errors   whatever fails ends the kernel: Panic.
#ifndef VMM_EXAMPLES_VAULT_SECURE_KERNEL_HYPERVISOR_H_
#define VMM_EXAMPLES_VAULT_SECURE_KERNEL_HYPERVISOR_H_

#include <cstdint>

#include "devices/hyperv/vsm/intercept_message_layout.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vault {

// To port 0xe9, which the monitor writes to its log.
void Log(const char* text);
void Log(const char* text, uint64_t value);
[[noreturn]] void Panic(const char* why, uint64_t value = 0);

// Hypercall page, assist page, message page, SINT0. First.
void StartHypervisor();
// VTL0 may neither read nor write nor execute it from here on.
void HidePages(uint64_t gpa, uint64_t bytes);

enum class Entry : uint8_t { kCall, kInterrupt };
[[nodiscard]] Entry WhyEntered();
// What VTL0 finds in RAX and RCX.
void SetReturnRegisters(uint64_t rax, uint64_t rcx);

// False: there is none.
[[nodiscard]] bool TakeIntercept(vmm::HvMemoryIntercept& message);
// VTL0's access ends as a page fault, as if nothing were mapped there.
void FaultInVtl0(uint64_t address, bool write);

}  // namespace vault

#endif  // VMM_EXAMPLES_VAULT_SECURE_KERNEL_HYPERVISOR_H_
