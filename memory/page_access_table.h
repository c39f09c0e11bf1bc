// The access of every page of RAM, two bits each, and in how many pieces a mapping of RAM falls by it.
//
// Units    page numbers are Gpfn.
// Threads  confined: its owner's lock.
// Trust    page numbers have been checked: a span lies in one range of RAM.
// Errors   Create: Status with errno. Nothing else allocates.
// Memory   1/16384 of the guest's address space up to the end of RAM, real where a page was written or looked at: 64 MiB for 1 TiB.
#ifndef VMM_MEMORY_PAGE_ACCESS_TABLE_H_
#define VMM_MEMORY_PAGE_ACCESS_TABLE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/layout.h"
#include "memory/page_access.h"

namespace vmm {

class PageAccessTable final {
 public:
  static absl::StatusOr<std::unique_ptr<PageAccessTable>> Create(const MemoryLayout& layout);
  PageAccessTable(const PageAccessTable&) = delete;
  PageAccessTable& operator=(const PageAccessTable&) = delete;
  ~PageAccessTable();

  [[nodiscard]] PageAccess Get(Gpfn page) const noexcept;
  // How many pages from `first` on, of `pages` at most, have the access of `first`. At least 1.
  [[nodiscard]] uint64_t RunLength(Gpfn first, uint64_t pages) const noexcept;
  void Set(Gpfn first, uint64_t pages, PageAccess access) noexcept;

  // Neighbours in one range of RAM whose access differs: a mapping has one piece more for each.
  [[nodiscard]] uint64_t borders() const noexcept { return borders_; }
  // As it would be after Set.
  [[nodiscard]] uint64_t BordersAfter(Gpfn first, uint64_t pages, PageAccess access) const noexcept;

  // Pages that may not be read and written.
  [[nodiscard]] uint64_t protected_pages() const noexcept { return protected_pages_; }

  // Everything may be read and written.
  void Reset() noexcept;

 private:
  static constexpr unsigned kBitsPerPage = 2;
  static constexpr uint64_t kPagesPerWord = 64 / kBitsPerPage;

  explicit PageAccessTable(const MemoryLayout& layout) : ram_(layout.ram()) {}
  // The page has a neighbour on that side in its range.
  [[nodiscard]] bool HasPageBefore(uint64_t page) const noexcept;
  [[nodiscard]] bool HasPageAfter(uint64_t page) const noexcept;

  const std::vector<RamRange> ram_;
  uint64_t* words_ = nullptr;
  uint64_t bytes_ = 0;
  uint64_t borders_ = 0;
  uint64_t protected_pages_ = 0;
};

}  // namespace vmm

#endif  // VMM_MEMORY_PAGE_ACCESS_TABLE_H_
