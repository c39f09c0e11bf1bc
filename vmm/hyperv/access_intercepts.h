// Accesses of MSRs and I/O ports that a level above wants to decide about: told to it, and not made.
//
// Invariants
//   1. Whoever wants to hear of an access is told before it has any effect, and it has none: no device is asked, no register changes.
//   2. The level that was stopped runs again only after one above has been entered and has left (VtlScheduler). It then stands at the
//      same instruction: made again, it is told again, unless the level above let it, moved it, or gave it an exception.
//   3. An access that nobody wants to hear of is made as if nobody ever had.
//
// Shapes   one object a VP, for VTL0. The message is on SINT0 of the lowest level that asked.
// Threads  confined to the VP's, outside the guest, but for stats. Ports are installed by any VP.
// Trust    numbers, sizes and instructions are the guest's.
// Errors   none.
// Source   Hyper-V TLFS, "HvRegisterCrInterceptControl", "HvCallInstallIntercept", "Intercept Message Formats".
//
// INS reads a device and writes memory, which KVM does with whatever it is given when the instruction is put back: it is given what
// is there. Bytes that another processor changes in that moment are lost.
// OUTS: KVM has moved the registers on when it exits, for the last or only iteration RIP too. Such an access is told with the registers
// as they are and without a length, and held: made before the level runs on if nobody wants to hear of it any more, told again if
// somebody does, given up where the level above has moved it on or given it an exception.
#ifndef VMM_VMM_HYPERV_ACCESS_INTERCEPTS_H_
#define VMM_VMM_HYPERV_ACCESS_INTERCEPTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/vsm/intercept_messages.h"
#include "devices/hyperv/vsm/io_port_intercepts.h"
#include "memory/guest_memory.h"
#include "memory/guest_view.h"
#include "memory/protection_enforcer.h"
#include "vcpu/access_decoder/access_decoder.h"
#include "vcpu/virtual_processor.h"
#include "vmm/hyperv/vtl_scheduler.h"

namespace vmm {

class AccessIntercepts final {
 public:
  // All outlive this.
  struct Environment {
    VirtualProcessor& processor;
    VtlScheduler& scheduler;
    const IoPortIntercepts& ports;
    const GuestMemory& memory;
    const ProtectionEnforcer& protections;
    const GuestView& view;  // of `vtl`
    std::function<Synic*(Vtl)> synic_of;  // this VP's
  };
  struct Stats {
    uint64_t msrs = 0;  // told
    uint64_t ports = 0;
  };

  AccessIntercepts(VpIndex vp, Vtl vtl, Environment environment) : vp_(vp), vtl_(vtl), environment_(std::move(environment)) {}
  AccessIntercepts(const AccessIntercepts&) = delete;
  AccessIntercepts& operator=(const AccessIntercepts&) = delete;

  // True: told.
  [[nodiscard]] bool OnMsr(uint32_t msr, bool write) noexcept;
  [[nodiscard]] AccessAnswer OnPort(const PortAccess& access, std::span<std::byte> data) noexcept;

  // `vtl` is to enter the guest: what is held is made, or told again (VtlScheduler::SuspendForIntercept).
  void Resume() noexcept;
  // A level above has moved `vtl` on or given it an exception.
  void Forget() noexcept { held_.reset(); }

  // Any thread.
  [[nodiscard]] Stats stats() const noexcept {
    return {.msrs = msrs_.load(std::memory_order_relaxed), .ports = ports_.load(std::memory_order_relaxed)};
  }

 private:
  struct Held {
    uint16_t port;
    uint8_t bytes;
    std::array<std::byte, 4> data;
  };
  [[nodiscard]] Synic* SynicOf(std::optional<Vtl> owner) const noexcept { return owner ? environment_.synic_of(*owner) : nullptr; }
  [[nodiscard]] InterceptedState State(const InstructionShape& shape) noexcept;
  void Tell(Synic& synic, const HvMessage& message) noexcept;
  // `at_access`: the instruction at RIP is the one that makes it.
  void TellOfPort(Synic& synic, const PortAccess& access, const InstructionShape& shape, bool at_access, bool string) noexcept;

  const VpIndex vp_;
  const Vtl vtl_;
  const Environment environment_;
  // Written by the VP's thread alone; relaxed, they order nothing.
  std::atomic<uint64_t> msrs_{0};
  std::atomic<uint64_t> ports_{0};
  std::optional<Held> held_;  // of OUTS
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_ACCESS_INTERCEPTS_H_
