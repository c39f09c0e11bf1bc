// What a virtual processor's thread hands to the hypervisor interface that the guest sees: MSRs, hypercalls, and work that
// other threads have for it.
//
// Shapes   one object a virtual processor and trust level.
// Threads  confined to the virtual processor's thread, outside the guest. Kicks come from other threads (VpKick).
// Trust    numbers and values are the guest's.
// Errors   values: false is #GP(0).
#ifndef VMM_DEVICES_GUEST_INTERFACE_H_
#define VMM_DEVICES_GUEST_INTERFACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm {

// The registers of a hypercall, and the mode it was made in.
struct HypercallRegisters {
  uint64_t rax, rbx, rcx, rdx, rsi, rdi, r8;
  uint64_t rip;         // linear, of the call; not written back
  bool long_mode;       // EFER.LMA and CS.L
  bool protected_mode;  // CR0.PE, and not virtual-8086
  uint8_t cpl;
};

// XMM0 to XMM5, the low half first; fetched and stored only by calls that use them.
using XmmRegisters = std::array<std::array<uint64_t, 2>, 6>;
class XmmAccess {
 public:
  virtual ~XmmAccess() = default;
  [[nodiscard]] virtual bool Load(XmmRegisters& xmm) noexcept = 0;
  [[nodiscard]] virtual bool Store(const XmmRegisters& xmm) noexcept = 0;
};

// What has become of an access that left the guest.
enum class AccessAnswer : uint8_t {
  kUnclaimed,  // it is not for here: the machine's devices are asked
  kDone,       // a read's answer is in `data`
  // A higher trust level has been told, and it is not made. When this level runs again it stands at the beginning of the instruction
  // (of its iteration, where that is repeated). What `data` holds is what the processor stores if it stores something meanwhile.
  kNotMade,
};

struct PortAccess {
  uint16_t port;
  uint8_t bytes;   // 1, 2 or 4
  uint32_t count;  // above 1 for string instructions: accesses, one after the other
  bool write;
};

enum class HypercallOutcome : uint8_t {
  kDone,              // registers hold the result; go on behind the call
  kAgain,             // registers hold where to continue; make the same call again, interrupts first
  kBlocked,           // make the same call again when a TLB lock was released, interrupts meanwhile; registers are as they were
  kSwitchVtl,         // registers are as they were; go on behind the call when this trust level runs next, which is not now
  kUndefinedOpcode,   // #UD at the call
  kNotOffered,        // no hypercall page is enabled: nothing is behind the port
};

class GuestInterface {
 public:
  virtual ~GuestInterface() = default;

  [[nodiscard]] virtual bool ReadMsr(uint32_t msr, uint64_t& value) noexcept = 0;
  [[nodiscard]] virtual bool WriteMsr(uint32_t msr, uint64_t value) noexcept = 0;
  [[nodiscard]] virtual HypercallOutcome Hypercall(HypercallRegisters& registers, XmmAccess& xmm) noexcept = 0;

  // Before ReadMsr and WriteMsr, and before a port's device is asked. True, kNotMade: a higher level has been told instead.
  [[nodiscard]] virtual bool OnInterceptedMsr(uint32_t /*msr*/, bool /*write*/) noexcept { return false; }
  [[nodiscard]] virtual AccessAnswer AccessPort(const PortAccess& /*access*/, std::span<std::byte> /*data*/) noexcept {
    return AccessAnswer::kUnclaimed;
  }

  // An access that KVM found no memory for: to a page of this level's own processor (its local APIC), to RAM that a higher level
  // refuses, or to a device of the machine's.
  [[nodiscard]] virtual AccessAnswer AccessMemory(uint64_t /*guest_gpa*/, std::span<std::byte> /*data*/, bool /*write*/) noexcept {
    return AccessAnswer::kUnclaimed;
  }
  // HLT, of a level without a local APIC in the kernel: the processor is behind it.
  virtual void OnHalt() noexcept {}

  // KVM could not reach memory. True: a higher trust level refuses the access and has been told, or nobody refuses it any more; the
  // processor goes on from LevelScheduler::BeforeEntry. False: OnInaccessibleMemory is asked.
  [[nodiscard]] virtual bool OnRefusedMemory() noexcept { return false; }
  // KVM could not reach memory, without saying where. True: the guest wrote to a page that it may only read, and gets #GP(0).
  [[nodiscard]] virtual bool OnInaccessibleMemory() noexcept = 0;

  // Before each entry. What waits for this processor is done in here, and from its return on a kick brings the thread back: no
  // work is told of without one.
  virtual void PrepareToEnter() noexcept = 0;
};

// Brings a virtual processor's thread out of the guest, to its PrepareToEnter.
//
// Threads  any; never blocks.
class VpKick {
 public:
  virtual ~VpKick() = default;
  virtual void Kick() noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_GUEST_INTERFACE_H_
