// An access that KVM could not make for a trust level, because a level above does not allow it: found, and told to that level.
//
// Shapes   one object a VP, for all its levels that are restricted. The message is on SINT0 of the level that refuses, which is the
//          lowest of those that do; the one that was stopped waits till the other has been entered and has left it (VtlScheduler).
// Threads  confined to the VP's, outside the guest, but for stats.
// Trust    registers, instructions and page tables are the guest's: the access decoder's to distrust.
// Errors   false: no protection explains it.
// Source   Hyper-V TLFS, "Memory Intercepts", "Secure Intercepts".
//
// An access that nothing refuses by now is made again: another processor may have changed the protections meanwhile. The same
// instruction that fails so, or is not known to the decoder, kPatience times in a row is given up; but where KVM names the page it is
// told by KVM's word (refused_access.h).
//
// Known gap: KVM's own instruction emulator (string I/O, an instruction with an operand in a device's memory) meets a refused page
// as if it were a device's. It reads ones and stores nothing, and the other level is told, but the instruction is not made again.
#ifndef VMM_VMM_HYPERV_MEMORY_INTERCEPTS_H_
#define VMM_VMM_HYPERV_MEMORY_INTERCEPTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/synic/synic.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/protection_enforcer.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/access_decoder/access_decoder.h"
#include "vmm/hyperv/vtl_scheduler.h"

namespace vmm {

class MemoryIntercepts final {
 public:
  // All outlive this.
  struct Environment {
    VirtualProcessor& processor;
    VtlScheduler& scheduler;
    const GuestMemory& memory;
    ProtectionEnforcer& protections;
    HvPartition& partition;                // of `vtl`
    std::function<Synic*(Vtl)> synic_of;   // this VP's
  };
  struct Stats {
    // Told, by what the access was.
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t executes = 0;
    uint64_t again = 0;     // nothing refused it any more, or it is not known: made again
    uint64_t unknown = 0;   // of these: instructions that the decoder does not know
    uint64_t emulated = 0;  // KVM's emulator met a refused page
    // Faults whose page KVM named, and of these: the decoder's first answer was on another page, or it knew of no access to this one.
    uint64_t named = 0;
    uint64_t other_first = 0;
    uint64_t unexplained = 0;
  };

  MemoryIntercepts(VpIndex vp, Vtl vtl, Environment environment) : vp_(vp), vtl_(vtl), environment_(std::move(environment)) {}
  MemoryIntercepts(const MemoryIntercepts&) = delete;
  MemoryIntercepts& operator=(const MemoryIntercepts&) = delete;

  // KVM_RUN of `vtl`, the active level, could not reach memory. True: go on from LevelScheduler::BeforeEntry.
  [[nodiscard]] bool OnFault() noexcept;
  // KVM's emulator has taken a page for a device's. True: it is RAM, and a read's answer is in `data`.
  [[nodiscard]] bool OnEmulatedAccess(Gpa gpa, std::span<std::byte> data, bool write) noexcept;

  // Any thread.
  [[nodiscard]] Stats stats() const noexcept;

 private:
  static constexpr uint32_t kPatience = 100'000;
  // Another processor that changes page tables or code under the fault would have to win as many races in a row.
  static constexpr uint32_t kUnexplainedTries = 16;

  // What is to be told of a fault, or why nothing is.
  [[nodiscard]] AccessDecoding Explain(kvm::Vcpu& vcpu) noexcept;
  // False: nobody refuses it.
  [[nodiscard]] bool Tell(kvm::Vcpu& vcpu, const AccessViolation& violation) noexcept;
  // False: it has been long enough.
  [[nodiscard]] bool TryAgain(uint64_t rip) noexcept;

  const VpIndex vp_;
  const Vtl vtl_;
  const Environment environment_;
  // Written by the VP's thread alone; relaxed, they order nothing.
  struct {
    std::array<std::atomic<uint64_t>, 3> told{};  // by AccessKind
    std::atomic<uint64_t> again{0};
    std::atomic<uint64_t> unknown{0};
    std::atomic<uint64_t> emulated{0};
    std::atomic<uint64_t> named{0};
    std::atomic<uint64_t> other_first{0};
    std::atomic<uint64_t> unexplained{0};
  } counters_;
  uint64_t last_rip_ = 0;
  uint32_t tries_ = 0;
  uint64_t unexplained_rip_ = 0;
  uint32_t unexplained_tries_ = 0;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_MEMORY_INTERCEPTS_H_
