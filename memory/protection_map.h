// What each trust level above VTL0 (an owner) lets the levels below it do with each page of RAM.
//
// Shapes   per owner a table of 4 bits a page, and one default for the pages that it never named. What a level may do with a page
//          is what all owners above it allow.
// Units    page numbers are Gpfn, of 4096 bytes; levels are VTL numbers.
// Threads  lookups: any, at any time, one or two loads an owner, no lock. Changes: one thread at a time, by the caller's own
//          lock, which covers making them true in the processors as well; else map and processors part.
// Trust    page numbers and rights are the guest's: what is not RAM, and no legal combination, is refused.
// Errors   Create: Status. Changes: ProtectionResult, no allocation.
// Memory   at most 1/8192 of the guest's address space up to the end of RAM for each owner, whatever a guest does: 128 MiB for 1
//          TiB. Only touched parts are real, 4 KiB for each 32 MiB in which a page was named.
// Source   Hyper-V TLFS, "Memory Access Protections", "HvCallModifyVtlProtectionMask".
//
// A table and no map of intervals: that one's worst case, every other page, takes a node of some 48 bytes for 2 pages (6 GiB for
// 1 TiB), allocates where a guest asks, and makes readers wait or needs memory reclaimed behind them. Ranges are found again by
// looking at neighbours.
//
// What a lookup on another thread sees while a change is made: each page's old rights or its new ones. After a change that
// happened before it (the call returned, and the threads synchronised): the new ones. Stores are releases and lookups acquires: who
// finds that a page is open again sees what was done in it before. That no processor still uses old rights is the caller's to do.
#ifndef VMM_MEMORY_PROTECTION_MAP_H_
#define VMM_MEMORY_PROTECTION_MAP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/layout.h"
#include "memory/page_rights.h"

namespace vmm {

enum class ProtectionResult : uint8_t {
  kDone,
  kNotRam,         // a page is outside RAM
  kNotLegal,       // no combination that PageRights::FromMapFlags has
  kDefaultIsFixed,
};

class ProtectionMap final {
 public:
  static constexpr unsigned kMaxLevels = 3;

  // Told of a change once the map says so, in merged ranges of pages: for each level below the owner whose rights differ now.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnChange(unsigned level, Gpfn first, uint64_t pages, PageRights before, PageRights after) noexcept = 0;
  };

  // `levels`: VTL0 and those above, 1 to kMaxLevels.
  static absl::StatusOr<std::unique_ptr<ProtectionMap>> Create(const MemoryLayout& layout, unsigned levels);
  ProtectionMap(const ProtectionMap&) = delete;
  ProtectionMap& operator=(const ProtectionMap&) = delete;
  ~ProtectionMap();

  // --- Lookups ---

  [[nodiscard]] bool IsRam(Gpfn first, uint64_t pages) const noexcept;
  // Everything where it is not RAM: there is nothing to protect.
  [[nodiscard]] PageRights Rights(unsigned level, Gpfn guest_page) const noexcept;
  // What one owner allows.
  [[nodiscard]] PageRights Imposed(unsigned owner, Gpfn guest_page) const noexcept;
  // Who is told of an access that needs all of `needed`: the lowest level above that does not allow it. nullopt: all allow it.
  [[nodiscard]] std::optional<unsigned> RefusingOwner(unsigned level, Gpfn guest_page, PageRights needed) const noexcept;
  // Pages of RAM from `first` on with what `level` may do, neighbours merged, ascending. Holes are left out.
  using RangeVisitor = absl::FunctionRef<void(Gpfn first, uint64_t pages, PageRights rights)>;
  void ForEachRange(unsigned level, Gpfn first, uint64_t pages, RangeVisitor visit) const noexcept;

  // --- Changes; 1 <= owner < levels ---

  // Of all pages that the owner never named. Once.
  ProtectionResult SetDefault(unsigned owner, PageRights rights, Listener& listener) noexcept;
  // Names pages: from now on they have these rights, whatever the default. All of the range is RAM, or nothing is changed.
  ProtectionResult Set(unsigned owner, Gpfn first, uint64_t pages, PageRights rights, Listener& listener) noexcept;
  // As a hypercall lists them; neighbours in the list are merged. Stops at the first that is not RAM: `done` are changed.
  struct ListResult {
    ProtectionResult result;
    size_t done;
  };
  ListResult SetPages(unsigned owner, std::span<const uint64_t> guest_pages, PageRights rights, Listener& listener) noexcept;
  // As created. Nobody is told.
  void Reset() noexcept;

 private:
  // A page of the table: so much is real or not, and is skipped at once where nothing in it was named.
  static constexpr uint64_t kChunkPages = kPageBytes * 2;
  class Runs;

  struct Owner {
    std::byte* table = nullptr;  // two pages a byte, the even one low. 0: not named
    std::unique_ptr<std::atomic<bool>[]> named;  // by chunk: a page in it was
    std::atomic<uint8_t> default_bits{PageRights::kAllBits};
    bool default_is_fixed = false;  // the changing thread's
  };

  ProtectionMap() = default;
  [[nodiscard]] bool IsNamedChunk(unsigned owner, uint64_t page) const noexcept;
  [[nodiscard]] std::optional<PageRights> Named(unsigned owner, uint64_t page) const noexcept;
  [[nodiscard]] PageRights ImposedUnchecked(unsigned owner, uint64_t page) const noexcept;
  [[nodiscard]] PageRights AllBut(unsigned level, unsigned owner, uint64_t page) const noexcept;
  void Name(unsigned owner, uint64_t page, PageRights rights) noexcept;
  void Change(unsigned owner, uint64_t page, PageRights rights, Runs& runs) noexcept;

  // Immutable after Create.
  std::vector<RamRange> ram_;
  uint64_t table_pages_ = 0;  // of the guest: up to the end of RAM, in whole chunks
  unsigned levels_ = 1;
  std::array<Owner, kMaxLevels> owners_;  // [0] is not used
};

}  // namespace vmm

#endif  // VMM_MEMORY_PROTECTION_MAP_H_
