// An access that KVM could not make for a trust level, because a level above does not allow it: found, and told to that level.
//
// Invariants, for instructions that the processor makes and for those that KVM's emulator makes (string I/O, an operand in a device's
// memory)
//   1. An access that is refused has no effect, and nor has its instruction (its iteration, where that is repeated): no device is asked,
//      no memory is written, no register changes. So an access is looked at before a device is asked: the emulator asks it first and
//      meets the refused page afterwards.
//   2. When the level above has let it, the instruction is made from its beginning, once: what was read from a device is neither lost
//      nor read again.
//   3. The level that was stopped runs again only after one above has been entered and has left (VtlScheduler).
//   4. A store that the emulator makes all the same, with its instruction over (its source was a device in KVM itself, or the page was
//      protected just now), is held: made before the level runs on if it may be by then, told again if not, and given up where the
//      level above has moved it on or given it an exception. It too happens once or not at all.
//
// Shapes   one object a VP, for all its levels that are restricted. The message is on SINT0 of the level that refuses, which is the
//          lowest of those that do; the one that was stopped waits till the other has been entered and has left it (VtlScheduler).
// Threads  confined to the VP's, outside the guest, but for stats.
// Trust    registers, instructions and page tables are the guest's: the access decoder's to distrust.
// Errors   false: no protection explains it.
// Source   Hyper-V TLFS, "Memory Intercepts", "Secure Intercepts".
//
// An access that nothing refuses by now is made again: another processor may have changed the protections meanwhile. The same
// instruction that fails so, or is not known to the decoder, kPatience times in a row while no protection changes is given up; but where KVM
// names the page it is told by KVM's word (refused_access.h).
//
// Known gaps: of a held store RIP is behind the instruction, whose length and bytes the message has not. While an instruction is put back
// KVM stores what was there (access_intercepts.h). A walk through a table that is refused is a page fault to KVM's emulator.
#ifndef VMM_VMM_HYPERV_MEMORY_INTERCEPTS_H_
#define VMM_VMM_HYPERV_MEMORY_INTERCEPTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/synic.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_view.h"
#include "memory/level_memory.h"
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
    const LevelMemory& level_memory;       // of `vtl`
    ProtectionEnforcer& protections;
    const GuestView& view;  // of `vtl`
    std::function<Synic*(Vtl)> synic_of;   // this VP's
  };
  struct Stats {
    // Told, by what the access was.
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t executes = 0;
    uint64_t again = 0;     // nothing refused it any more, or it is not known: made again
    uint64_t unknown = 0;   // of these: instructions that the decoder does not know
    uint64_t emulated = 0;  // KVM's emulator met a refused page, or would have
    uint64_t held = 0;      // of these: stores that were held
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
  // KVM's emulator asks for memory that it takes for a device's: RAM that is refused, or a device's indeed and the instruction may have
  // another operand.
  [[nodiscard]] AccessAnswer OnEmulatedAccess(Gpa gpa, std::span<std::byte> data, bool write) noexcept;
  // It asks a port's device for what INS, it may be, is to store.
  [[nodiscard]] AccessAnswer OnPortRead(const PortAccess& access, std::span<std::byte> data) noexcept;

  // `vtl` is to enter the guest: what is held is made, or told again (VtlScheduler::SuspendForIntercept).
  void Resume() noexcept;
  // A level above has moved `vtl` on or given it an exception.
  void Forget() noexcept { held_count_ = 0; }

  // Any thread.
  [[nodiscard]] Stats stats() const noexcept;

 private:
  static constexpr uint32_t kPatience = 100'000;
  // Another processor that changes page tables or code under the fault would have to win as many races in a row.
  static constexpr uint32_t kUnexplainedTries = 16;

  struct Store {
    Gpa gpa;
    uint8_t bytes;
    std::array<std::byte, 8> data;
  };
  // One instruction's: KVM reads 1024 bytes of a port at once, and stores 8 at once.
  static constexpr size_t kMostHeld = 1024 / 8 + 2;

  // What is to be told of a fault, or why nothing is.
  [[nodiscard]] AccessDecoding Explain(kvm::Vcpu& vcpu) noexcept;
  [[nodiscard]] AccessDecoding Decode(const AccessRegisters& registers) const noexcept;
  // What refuses it is a page of ours, which is not for a level to allow.
  [[nodiscard]] bool IsOnOverlay(const AccessDecoding& decoding) const noexcept;
  // False: nobody refuses it.
  [[nodiscard]] bool Tell(kvm::Vcpu& vcpu, const AccessViolation& violation) noexcept;
  // The instruction at RIP would be refused, with these registers; told.
  [[nodiscard]] bool TellIfRefused(const AccessRegisters& registers) noexcept;
  // False: it has been long enough.
  [[nodiscard]] bool TryAgain(uint64_t rip) noexcept;
  void Hold(Gpa gpa, std::span<const std::byte> data) noexcept;

  const VpIndex vp_;
  const Vtl vtl_;
  const Environment environment_;
  // Written by the VP's thread alone; relaxed, they order nothing.
  struct {
    std::array<std::atomic<uint64_t>, 3> told{};  // by AccessKind
    std::atomic<uint64_t> again{0};
    std::atomic<uint64_t> unknown{0};
    std::atomic<uint64_t> emulated{0};
    std::atomic<uint64_t> held{0};
    std::atomic<uint64_t> named{0};
    std::atomic<uint64_t> other_first{0};
    std::atomic<uint64_t> unexplained{0};
  } counters_;
  uint64_t last_rip_ = 0;
  uint64_t last_changes_ = 0;  // of protections
  uint32_t tries_ = 0;
  uint64_t unexplained_rip_ = 0;
  uint32_t unexplained_tries_ = 0;
  size_t held_count_ = 0;
  std::array<Store, kMostHeld> held_{};
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_MEMORY_INTERCEPTS_H_
