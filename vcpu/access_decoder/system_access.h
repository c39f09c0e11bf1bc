// What the processor itself accesses for an instruction or an event: descriptor tables, task state segment, interrupt tables, and
// the stacks that these lead to. Internal to the access decoder.
//
// Threads  confined to the call that made them.
// Trust    descriptors and selectors are the guest's, loaded once each.
// Errors   false ends the instruction, as in guest_access.h.
// Source   Intel SDM volume 2, "Operation" of each instruction; volume 3, "Protection", "Interrupt and Exception Handling", "Task
//          Management". AMD's processors differ in details that no protection can show, but for the order of pops and
//          descriptors.
#ifndef VMM_VCPU_ACCESS_DECODER_SYSTEM_ACCESS_H_
#define VMM_VCPU_ACCESS_DECODER_SYSTEM_ACCESS_H_

#include <cstdint>

#include "vcpu/access_decoder/guest_access.h"

namespace vmm {

enum class SegmentLoad : uint8_t { kData, kStack };

// MOV, POP, LDS and the like.
bool TryLoadSegment(GuestAccess& access, uint16_t selector, SegmentLoad kind) noexcept;
bool TryLoadLocalTable(GuestAccess& access, uint16_t selector) noexcept;
bool TryLoadTask(GuestAccess& access, uint16_t selector) noexcept;
// LAR, LSL, VERR, VERW: a selector that is none is no fault.
bool TryInspect(GuestAccess& access, uint16_t selector) noexcept;

// `bytes`: the operand size, 2, 4 or 8. The pointer itself has been read.
bool TryFarJump(GuestAccess& access, uint16_t selector) noexcept;
bool TryFarCall(GuestAccess& access, uint16_t selector, unsigned bytes) noexcept;
bool TryFarReturn(GuestAccess& access, unsigned bytes, unsigned released_bytes) noexcept;
bool TryInterruptReturn(GuestAccess& access, unsigned bytes) noexcept;

bool TryEvent(GuestAccess& access, const AccessEvent& event) noexcept;

// IN, OUT and their string forms, where the permission bitmap decides.
bool TryPortPermission(GuestAccess& access, uint16_t port, unsigned bytes) noexcept;

}  // namespace vmm

#endif  // VMM_VCPU_ACCESS_DECODER_SYSTEM_ACCESS_H_
