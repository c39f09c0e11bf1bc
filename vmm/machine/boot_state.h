// Puts a vCPU into the state in which a boot protocol enters its kernel.
//
// Threads  the vCPU's creator, before its first Run.
// Errors   Status of the register ioctls.
#ifndef VMM_VMM_MACHINE_BOOT_STATE_H_
#define VMM_VMM_MACHINE_BOOT_STATE_H_

#include "absl/status/status.h"
#include "kvm/vcpu.h"
#include "vmm/boot/boot_entry.h"

namespace vmm {

absl::Status SetBootState(kvm::Vcpu& vcpu, const BootEntry& entry);

}  // namespace vmm

#endif  // VMM_VMM_MACHINE_BOOT_STATE_H_
