// The guest's page tables, walked as its processor walks them: an address to a guest physical one, or the page fault, and every
// access to a page-table entry on the way.
//
// Shapes   no paging, 32-bit (with PSE), PAE, 4 and 5 levels; large pages. NX, U/S, WP, SMEP, SMAP, reserved bits, A and D bits.
// Units    linear addresses and Gpa in bytes; `level` counts up from 1, the table whose entries map 4 KiB pages.
// Threads  WalkPageTables, SetAccessedDirty: any. The guest runs meanwhile: each entry is loaded once, whole.
// Trust    entries are the guest's. A walk is five loads at most, whatever they say; tables outside RAM end it (kTableNotRam).
// Errors   values: WalkFault, with the error code that #PF would have.
// Source   Intel SDM volume 3, "Paging"; AMD64 APM volume 2, "Page Translation and Protection".
//
// Ignored, as if off: protection keys, shadow stacks, LAM and LASS. The four PDPTEs of PAE are loaded from memory by each walk,
// as AMD's processors do under nested paging (Intel's keep them from MOV to CR3 on); reserved bits in them are then a page fault.
// Overlay pages are not seen: tables are read in RAM.
//
// Accesses are in this order: the entry of the highest level is read, then its A bit is written if it was clear, and so down. The
// leaf's A and D are written only if the access is permitted. Processors are free to set the upper A bits later or not at all on
// a fault; none sets them where it could not read the entry.
#ifndef VMM_VCPU_PAGE_WALK_H_
#define VMM_VCPU_PAGE_WALK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "memory/gpa.h"
#include "memory/guest_memory.h"

namespace vmm {

struct PagingState {
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  uint64_t rflags = 0;  // AC, for SMAP
  uint8_t physical_bits = 52;  // MAXPHYADDR; bits above it in an entry are reserved. Outside [32, 52]: the nearer end
  bool gigabyte_pages = true;  // CPUID: 1 GiB pages with 4 levels
};

enum class WalkAccess : uint8_t { kRead, kWrite, kExecute };

enum class WalkPrivilege : uint8_t {
  kUser,        // CPL 3
  kSupervisor,  // CPL 0 to 2, what an instruction names itself: RFLAGS.AC lifts SMAP
  kSystem,  // what the processor does as supervisor at any CPL: descriptor tables, TSS, stack of an interrupt. AC lifts nothing
  kExempt,  // U/S, SMEP and SMAP are not looked at
};

enum class WalkFault : uint8_t {
  kNone,
  kNotPresent,    // #PF
  kProtection,    // #PF
  kReservedBit,   // #PF
  kNotCanonical,  // #GP or #SS; no table was read
  kTableNotRam,   // the last access of the list is of an entry that is not RAM
};

// One access to a page-table entry.
struct TableAccess {
  Gpa gpa;
  uint8_t bytes = 0;  // 4 or 8, aligned
  uint8_t level = 0;
  bool write = false;       // an A or D bit: a locked read and write
  uint64_t value = 0;       // as loaded; 0 if it is not RAM
  uint64_t new_value = 0;   // write: with the bits set
};

struct PageWalk {
  static constexpr size_t kMaxAccesses = 10;  // 5 levels, read and write

  WalkFault fault = WalkFault::kNone;
  uint32_t error_code = 0;  // of #PF
  Gpa gpa;                  // kNone: where the byte is
  uint64_t page_bytes = 0;  // kNone: of the page that maps it; 0 without paging
  uint8_t pat_index = 0;    // kNone: PAT, PCD and PWT of the leaf, the entry of IA32_PAT
  uint8_t access_count = 0;
  std::array<TableAccess, kMaxAccesses> access_list;

  [[nodiscard]] std::span<const TableAccess> accesses() const noexcept { return std::span(access_list).first(access_count); }
};

[[nodiscard]] PageWalk WalkPageTables(const GuestMemory& memory, const PagingState& paging, uint64_t linear, WalkAccess access,
                                      WalkPrivilege privilege) noexcept;

// Does the writes of `walk`. False: an entry is no longer as it was loaded (or not RAM); entries before it are done, walk again.
[[nodiscard]] bool SetAccessedDirty(const GuestMemory& memory, const PageWalk& walk) noexcept;

// 32 without EFER.LMA, else 48 or 57.
[[nodiscard]] unsigned LinearBits(const PagingState& paging) noexcept;
[[nodiscard]] bool IsCanonical(const PagingState& paging, uint64_t linear) noexcept;

}  // namespace vmm

#endif  // VMM_VCPU_PAGE_WALK_H_
