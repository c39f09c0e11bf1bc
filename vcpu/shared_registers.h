// The registers that all trust levels of a virtual processor share, from the vCPU of the level that leaves into that of the next.
//
// Shared: RAX to R15 without RSP, CR2, DR0 to DR3, XCR0, and the x87 and vector state. All others stay in their vCPU.
//
// Shapes   levels are numbered from 0. General registers and CR2 go by the run pages (kvm/vcpu.h, synced_regs), without a system
//          call. The rest is read from the vCPU that leaves, since a guest changes it without an exit that we see and KVM tells of it
//          by a system call only, and written only where the other one has something else: each level notes which version it was
//          given or has left behind. XCR0 is left out until some level could have changed it.
// Threads  confined to the VP's.
// Trust    values are the guest's: KVM checked them when the guest loaded them.
// Errors   false: KVM refused, and the machine cannot go on.
// Source   Hyper-V TLFS, "Virtual Secure Mode", "Private State" and "Shared State".
#ifndef VMM_VCPU_SHARED_REGISTERS_H_
#define VMM_VCPU_SHARED_REGISTERS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "kvm/uapi.h"
#include "kvm/vcpu.h"

namespace vmm {

class SharedRegisters final {
 public:
  static constexpr size_t kMaxLevels = 3;

  // Requires: the synced registers of both are those between two instructions. Both levels are below kMaxLevels.
  [[nodiscard]] bool CarryOver(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept;

  // Of vector and debug state that had to be written: of all the others it was the same.
  [[nodiscard]] uint64_t vector_loads() const noexcept { return vector_.version; }
  [[nodiscard]] uint64_t debug_loads() const noexcept { return debug_.version; }

 private:
  struct Versions {
    uint64_t version = 0;  // counts changes
    std::array<uint64_t, kMaxLevels> of_level{};
    // The level that leaves has what it has: the newest version.
    void Left(size_t level, bool changed) noexcept {
      if (changed || version == 0) ++version;
      of_level[level] = version;
    }
    // True: the level that comes needs it.
    bool Enters(size_t level) noexcept {
      if (of_level[level] == version) return false;
      of_level[level] = version;
      return true;
    }
  };
  [[nodiscard]] bool CarryVector(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept;
  [[nodiscard]] bool CarryDebug(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept;
  [[nodiscard]] bool CarryXcr0(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept;

  Versions vector_;
  Versions debug_;
  Versions xcr0_;
  bool has_xcr0_ = false;  // some level has had CR4.OSXSAVE
  // As the last level that left had it. Two images: the kernel writes one, the other is what it is compared with.
  std::array<kvm_xsave, 2> xsave_{};
  size_t newest_ = 0;
  std::array<uint64_t, 4> debug_addresses_{};
  uint64_t xcr0_value_ = 0;
};

}  // namespace vmm

#endif  // VMM_VCPU_SHARED_REGISTERS_H_
