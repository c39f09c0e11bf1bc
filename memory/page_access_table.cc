#include "memory/page_access_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {
namespace {

// The same two bits for each of a word's pages.
constexpr uint64_t Everywhere(PageAccess access) noexcept { return 0x5555'5555'5555'5555 * static_cast<uint64_t>(access); }

// How many of a word's pages are not kReadWrite, which is 0.
constexpr uint64_t ProtectedIn(uint64_t word) noexcept {
  return static_cast<uint64_t>(std::popcount((word | word >> 1) & 0x5555'5555'5555'5555));
}
static_assert(static_cast<int>(PageAccess::kReadWrite) == 0);

}  // namespace

absl::StatusOr<std::unique_ptr<PageAccessTable>> PageAccessTable::Create(const MemoryLayout& layout) {
  std::unique_ptr<PageAccessTable> table(new PageAccessTable(layout));
  const RamRange& last = table->ram_.back();
  const uint64_t pages = (last.start.raw() + last.bytes) / kPageBytes;
  table->bytes_ = (pages + kPagesPerWord - 1) / kPagesPerWord * sizeof(uint64_t);
  void* const map =
      ::mmap(nullptr, table->bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", table->bytes_, " bytes of page accesses"));
  table->words_ = static_cast<uint64_t*>(map);
  // One small page of it for what is named, not a huge one; a kernel without huge pages refuses, and is right.
  ::madvise(map, table->bytes_, MADV_NOHUGEPAGE);
  return table;
}

PageAccessTable::~PageAccessTable() {
  if (words_ != nullptr) ::munmap(words_, bytes_);
}

PageAccess PageAccessTable::Get(Gpfn page) const noexcept {
  const uint64_t word = words_[page.raw() / kPagesPerWord];
  return static_cast<PageAccess>(word >> page.raw() % kPagesPerWord * kBitsPerPage & 0b11);
}

uint64_t PageAccessTable::RunLength(Gpfn first, uint64_t pages) const noexcept {
  const uint64_t pattern = Everywhere(Get(first));
  uint64_t page = first.raw();
  const uint64_t end = page + pages;
  while (page < end) {
    const uint64_t index = page % kPagesPerWord;
    const uint64_t different = (words_[page / kPagesPerWord] ^ pattern) >> index * kBitsPerPage;
    if (different != 0) return std::min(end, page + static_cast<uint64_t>(std::countr_zero(different)) / kBitsPerPage) - first.raw();
    page += kPagesPerWord - index;
  }
  return pages;
}

bool PageAccessTable::HasPageBefore(uint64_t page) const noexcept {
  return std::ranges::none_of(ram_, [page](const RamRange& range) { return range.start.raw() == page * kPageBytes; });
}

bool PageAccessTable::HasPageAfter(uint64_t page) const noexcept {
  return std::ranges::none_of(ram_, [page](const RamRange& range) { return range.start.raw() + range.bytes == (page + 1) * kPageBytes; });
}

uint64_t PageAccessTable::BordersAfter(Gpfn first, uint64_t pages, PageAccess access) const noexcept {
  const uint64_t last = first.raw() + pages - 1;
  uint64_t borders = borders_;
  // Those within go.
  for (uint64_t done = RunLength(first, pages); done < pages; done += RunLength(Gpfn(first.raw() + done), pages - done)) --borders;
  // Those at the two ends may come or go.
  if (HasPageBefore(first.raw())) {
    const PageAccess before = Get(Gpfn(first.raw() - 1));
    borders -= before != Get(first) ? 1 : 0;
    borders += before != access ? 1 : 0;
  }
  if (HasPageAfter(last)) {
    const PageAccess after = Get(Gpfn(last + 1));
    borders -= after != Get(Gpfn(last)) ? 1 : 0;
    borders += after != access ? 1 : 0;
  }
  return borders;
}

void PageAccessTable::Set(Gpfn first, uint64_t pages, PageAccess access) noexcept {
  borders_ = BordersAfter(first, pages, access);
  uint64_t page = first.raw();
  const uint64_t end = page + pages;
  while (page < end) {
    const uint64_t index = page % kPagesPerWord;
    const uint64_t count = std::min(kPagesPerWord - index, end - page);
    const uint64_t bits = count == kPagesPerWord ? ~uint64_t{0} : ((uint64_t{1} << count * kBitsPerPage) - 1) << index * kBitsPerPage;
    uint64_t& word = words_[page / kPagesPerWord];
    protected_pages_ -= ProtectedIn(word);
    word = (word & ~bits) | (Everywhere(access) & bits);
    protected_pages_ += ProtectedIn(word);
    page += count;
  }
}

void PageAccessTable::Reset() noexcept {
  ::madvise(words_, bytes_, MADV_DONTNEED);  // reads as zeroes from now on
  borders_ = 0;
  protected_pages_ = 0;
}

}  // namespace vmm
