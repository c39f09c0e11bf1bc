// How guest RAM is mapped into this process: shared by GuestMemory and GuestView, which differ in what they do with it.
//
// Shapes   per RamRange one stretch of host addresses without gaps, aligned to the huge pages that may back it; as many mappings in it
//          as the range has pieces.
// Threads  pure functions over the caller's mappings.
// Trust    Find: the address may be the guest's and the sum may wrap; the answer is inside the mapping or nullptr.
// Errors   Map: Status with errno.
#ifndef VMM_MEMORY_RAM_MAPPING_H_
#define VMM_MEMORY_RAM_MAPPING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "memory/gpa.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"

namespace vmm {

struct RamMapping {
  RamRange range;
  std::byte* host;
};

enum class RamUse : uint8_t {
  kGuest,    // KVM's slots: backed and locked ahead where the options say so
  kMonitor,  // our own access: page tables only for what is touched
};

// Appends to `out`; what is in there is the caller's to unmap, also after an error.
absl::Status MapRam(const GuestRam& ram, const MemoryLayout& layout, RamUse use, std::vector<RamMapping>& out);
void UnmapRam(const std::vector<RamMapping>& mappings) noexcept;

// Tells the kernel what the options say of [host, host + bytes). The same for a whole mapping and for a part of it that was mapped
// anew: only then does the kernel join the two again.
void AdviseRam(std::byte* host, uint64_t bytes, const GuestRamOptions& options) noexcept;

// Maps RAM at `ram_offset` anew at `host`, where it was already, from where its pages are by now. False: the host has refused, and some of
// it may be mapped anew, all else as it was.
[[nodiscard]] bool MapRamAgain(const RamFiles& files, const GuestRamOptions& options, RamUse use, std::byte* host, uint64_t ram_offset,
                               uint64_t bytes, int protection) noexcept;

// Where a page of RAM is: in the mapping that has it, and in RAM. Requires: one has it.
struct RamSpot {
  std::byte* host;
  uint64_t ram_offset;
};
[[nodiscard]] RamSpot SpotOf(const std::vector<RamMapping>& mappings, Gpa guest_gpa) noexcept;

// The host address of [gpa, gpa + bytes) where one mapping holds all of it, else nullptr.
[[nodiscard]] std::byte* FindInRam(const std::vector<RamMapping>& mappings, Gpa guest_gpa, uint64_t bytes) noexcept;

// How many mappings this host grants a process.
[[nodiscard]] uint64_t MappingsOfAProcess();

// All of RAM that a device process may be given: what is not reserved, with the files that it is in. Ascending; `fd` is the RAM's.
struct DeviceRam {
  Gpa start;
  uint64_t bytes = 0;
  int fd = -1;
  uint64_t fd_offset = 0;
};
[[nodiscard]] std::vector<DeviceRam> RamForDevices(const RamFiles& files, const MemoryLayout& layout);

}  // namespace vmm

#endif  // VMM_MEMORY_RAM_MAPPING_H_
