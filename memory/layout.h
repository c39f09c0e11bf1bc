// Where things are in guest physical address space.
//
// Shapes   RAM from 0 up to the MMIO hole at 3 GiB, the rest from 4 GiB on. The hole holds, bottom up: 32-bit PCI window,
//          ECAM, then the interrupt controllers and KVM's private pages.
// Units    bytes.
// Errors   Create: INVALID_ARGUMENT for sizes that are not whole pages, or out of [1 MiB, 1 TiB].
// Threads  immutable after Create.
#ifndef VMM_MEMORY_LAYOUT_H_
#define VMM_MEMORY_LAYOUT_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"

namespace vmm {

inline constexpr uint64_t kMiB = 1024 * 1024;
inline constexpr uint64_t kGiB = 1024 * kMiB;

inline constexpr Gpa kMmioHoleStart{3 * kGiB};
inline constexpr Gpa kPciWindow32{3 * kGiB};
inline constexpr uint64_t kPciWindow32Bytes = 512 * kMiB;
inline constexpr Gpa kEcamBase{0xe000'0000};
// One bus: Linux asks every slot of every bus that MCFG names, an exit each.
inline constexpr uint64_t kEcamBytes = 1 * kMiB;
inline constexpr Gpa kIoApicBase{0xfec0'0000};
inline constexpr Gpa kLocalApicBase{0xfee0'0000};
// Intel's real-mode emulation inside KVM wants four pages that nothing else uses: the identity map and the TSS.
inline constexpr Gpa kKvmIdentityMapBase{0xfffb'c000};
inline constexpr Gpa kKvmTssBase{0xfffb'd000};
inline constexpr Gpa kMmioHoleEnd{4 * kGiB};

struct RamRange {
  Gpa start;
  uint64_t bytes;
  uint64_t ram_offset;  // in RAM, counted without the hole
};

class MemoryLayout final {
 public:
  static constexpr uint64_t kMinRamBytes = 1 * kMiB;
  static constexpr uint64_t kMaxRamBytes = 1024 * kGiB;

  static absl::StatusOr<MemoryLayout> Create(uint64_t ram_bytes);

  // Ascending, never adjacent, one or two of them.
  [[nodiscard]] const std::vector<RamRange>& ram() const { return ram_; }
  [[nodiscard]] uint64_t ram_bytes() const { return ram_bytes_; }
  // Where [start, start + bytes) is in RAM; nullopt: not all of it is, or it reaches over the hole.
  [[nodiscard]] std::optional<uint64_t> RamOffset(Gpa start, uint64_t bytes) const;
  // The first address above all RAM and above 4 GiB, aligned to 1 GiB: where 64-bit PCI windows may begin.
  [[nodiscard]] Gpa high_mmio_start() const;

 private:
  MemoryLayout() = default;
  std::vector<RamRange> ram_;
  uint64_t ram_bytes_ = 0;
};

}  // namespace vmm

#endif  // VMM_MEMORY_LAYOUT_H_
