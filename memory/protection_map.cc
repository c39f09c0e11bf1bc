#include "memory/protection_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {
namespace {

// The four bits of a named page are its rights, but for none at all: 0 is for pages that are not named. Write alone is no legal
// combination, so its value is free.
constexpr uint8_t kNamedNone = PageRights::kWrite;

constexpr uint8_t Encode(PageRights rights) noexcept { return rights.bits() == 0 ? kNamedNone : rights.bits(); }
constexpr PageRights Decode(uint8_t bits) noexcept { return bits == kNamedNone ? PageRights::None() : PageRights(bits); }

}  // namespace

// Changes of neighbouring pages, put together for the listener.
class ProtectionMap::Runs final {
 public:
  Runs(unsigned owner, Listener& listener) noexcept : owner_(owner), listener_(listener) {}
  ~Runs() {
    for (unsigned level = 0; level < owner_; ++level) Flush(level);
  }
  Runs(const Runs&) = delete;
  Runs& operator=(const Runs&) = delete;

  void Add(unsigned level, uint64_t first, uint64_t pages, PageRights before, PageRights after) noexcept {
    if (before == after) return;
    Run& run = runs_[level];
    if (run.pages != 0 && run.first + run.pages == first && run.before == before && run.after == after) {
      run.pages += pages;
      return;
    }
    Flush(level);
    run = {first, pages, before, after};
  }

 private:
  struct Run {
    uint64_t first = 0;
    uint64_t pages = 0;
    PageRights before;
    PageRights after;
  };
  void Flush(unsigned level) noexcept {
    Run& run = runs_[level];
    if (run.pages != 0) listener_.OnChange(level, Gpfn(run.first), run.pages, run.before, run.after);
    run.pages = 0;
  }

  const unsigned owner_;
  Listener& listener_;
  std::array<Run, kMaxLevels> runs_;
};

absl::StatusOr<std::unique_ptr<ProtectionMap>> ProtectionMap::Create(const MemoryLayout& layout, unsigned levels) {
  if (levels < 1 || levels > kMaxLevels)
    return absl::InvalidArgumentError(absl::StrCat("make a protection map of ", levels, " levels"));
  std::unique_ptr<ProtectionMap> map(new ProtectionMap());
  map->ram_ = layout.ram();
  map->levels_ = levels;
  const RamRange& last = map->ram_.back();
  const uint64_t end = (last.start.raw() + last.bytes) / kPageBytes;
  const uint64_t chunks = (end + kChunkPages - 1) / kChunkPages;
  map->table_pages_ = chunks * kChunkPages;
  for (unsigned owner = 1; owner < levels; ++owner) {
    const size_t bytes = chunks * kPageBytes;
    void* const table = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", bytes, " bytes of page protections"));
    map->owners_[owner].table = static_cast<std::byte*>(table);
    // One page of it for each chunk that is named, not 512; a kernel without huge pages refuses, and is right.
    ::madvise(table, bytes, MADV_NOHUGEPAGE);
    map->owners_[owner].named = std::make_unique<std::atomic<bool>[]>(chunks);
  }
  return map;
}

ProtectionMap::~ProtectionMap() {
  for (const Owner& owner : owners_) {
    if (owner.table != nullptr) ::munmap(owner.table, table_pages_ / 2);
  }
}

bool ProtectionMap::IsRam(Gpfn first, uint64_t pages) const noexcept {
  return std::ranges::any_of(ram_, [&](const RamRange& range) {
    const uint64_t start = range.start.raw() / kPageBytes;
    const uint64_t count = range.bytes / kPageBytes;
    // By sizes: sums of the guest's numbers may wrap.
    return first.raw() >= start && first.raw() - start < count && pages <= count - (first.raw() - start);
  });
}

bool ProtectionMap::IsNamedChunk(unsigned owner, uint64_t page) const noexcept {
  return owners_[owner].named[page / kChunkPages].load(std::memory_order_acquire);
}

std::optional<PageRights> ProtectionMap::Named(unsigned owner, uint64_t page) const noexcept {
  if (!IsNamedChunk(owner, page)) return std::nullopt;
  const auto& byte = reinterpret_cast<uint8_t&>(owners_[owner].table[page / 2]);
  const uint8_t pair = std::atomic_ref(const_cast<uint8_t&>(byte)).load(std::memory_order_acquire);
  const uint8_t bits = (page % 2 == 0 ? pair : pair >> 4) & 0xf;
  if (bits == 0) return std::nullopt;
  return Decode(bits);
}

PageRights ProtectionMap::ImposedUnchecked(unsigned owner, uint64_t page) const noexcept {
  const std::optional<PageRights> named = Named(owner, page);
  return named.has_value() ? *named : PageRights(owners_[owner].default_bits.load(std::memory_order_acquire));
}

PageRights ProtectionMap::Imposed(unsigned owner, Gpfn guest_page) const noexcept {
  if (owner == 0 || owner >= levels_ || !IsRam(guest_page, 1)) return PageRights();
  return ImposedUnchecked(owner, guest_page.raw());
}

// What the owners above `level` allow, without `owner`.
PageRights ProtectionMap::AllBut(unsigned level, unsigned owner, uint64_t page) const noexcept {
  PageRights rights;
  for (unsigned above = level + 1; above < levels_; ++above) {
    if (above != owner) rights = rights & ImposedUnchecked(above, page);
  }
  return rights;
}

PageRights ProtectionMap::Rights(unsigned level, Gpfn guest_page) const noexcept {
  return IsRam(guest_page, 1) ? AllBut(level, /*owner=*/0, guest_page.raw()) : PageRights();
}

std::optional<unsigned> ProtectionMap::RefusingOwner(unsigned level, Gpfn guest_page, PageRights needed) const noexcept {
  for (unsigned owner = level + 1; owner < levels_; ++owner) {
    if ((Imposed(owner, guest_page) & needed) != needed) return owner;
  }
  return std::nullopt;
}

void ProtectionMap::ForEachRange(unsigned level, Gpfn first, uint64_t pages, RangeVisitor visit) const noexcept {
  for (const RamRange& range : ram_) {
    const uint64_t start = range.start.raw() / kPageBytes;
    const uint64_t end = start + range.bytes / kPageBytes;
    uint64_t page = std::max(start, first.raw());
    if (page >= end || page < first.raw() || page - first.raw() >= pages) continue;
    const uint64_t stop = std::min(end - page, pages - (page - first.raw())) + page;
    uint64_t run_first = page;
    PageRights run_rights;
    while (page < stop) {
      bool named = false;
      for (unsigned owner = level + 1; owner < levels_; ++owner) named = named || IsNamedChunk(owner, page);
      const PageRights rights = AllBut(level, /*owner=*/0, page);
      if (page != run_first && rights != run_rights) {
        visit(Gpfn(run_first), page - run_first, run_rights);
        run_first = page;
      }
      run_rights = rights;
      // A chunk that nobody named is all alike.
      page = named ? page + 1 : std::min(stop, (page / kChunkPages + 1) * kChunkPages);
    }
    visit(Gpfn(run_first), stop - run_first, run_rights);
  }
}

ProtectionResult ProtectionMap::SetDefault(unsigned owner, PageRights rights, Listener& listener) noexcept {
  Owner& changed = owners_[owner];
  if (!PageRights::FromMapFlags(rights.bits(), true).has_value()) return ProtectionResult::kNotLegal;
  if (changed.default_is_fixed) return ProtectionResult::kDefaultIsFixed;
  changed.default_is_fixed = true;
  const PageRights before(changed.default_bits.load(std::memory_order_relaxed));
  changed.default_bits.store(rights.bits(), std::memory_order_release);
  if (before == rights) return ProtectionResult::kDone;
  Runs runs(owner, listener);
  for (const RamRange& range : ram_) {
    const uint64_t end = (range.start.raw() + range.bytes) / kPageBytes;
    for (uint64_t page = range.start.raw() / kPageBytes; page < end;) {
      bool named = false;
      for (unsigned other = 1; other < levels_; ++other) named = named || IsNamedChunk(other, page);
      const uint64_t pages = named ? 1 : std::min(end, (page / kChunkPages + 1) * kChunkPages) - page;
      if (!Named(owner, page).has_value()) {
        for (unsigned level = 0; level < owner; ++level) {
          const PageRights others = AllBut(level, owner, page);
          runs.Add(level, page, pages, others & before, others & rights);
        }
      }
      page += pages;
    }
  }
  return ProtectionResult::kDone;
}

void ProtectionMap::Name(unsigned owner, uint64_t page, PageRights rights) noexcept {
  owners_[owner].named[page / kChunkPages].store(true, std::memory_order_release);
  // Load and store, not one operation: only one thread changes the map.
  const std::atomic_ref byte(reinterpret_cast<uint8_t&>(owners_[owner].table[page / 2]));
  const uint8_t pair = byte.load(std::memory_order_relaxed);
  const uint8_t bits = Encode(rights);
  byte.store(page % 2 == 0 ? (pair & 0xf0) | bits : (pair & 0x0f) | bits << 4, std::memory_order_release);
}

void ProtectionMap::Change(unsigned owner, uint64_t page, PageRights rights, Runs& runs) noexcept {
  const PageRights before = ImposedUnchecked(owner, page);
  Name(owner, page, rights);
  for (unsigned level = 0; level < owner; ++level) {
    const PageRights others = AllBut(level, owner, page);
    runs.Add(level, page, 1, others & before, others & rights);
  }
}

ProtectionResult ProtectionMap::Set(unsigned owner, Gpfn first, uint64_t pages, PageRights rights, Listener& listener) noexcept {
  if (!PageRights::FromMapFlags(rights.bits(), true).has_value()) return ProtectionResult::kNotLegal;
  if (!IsRam(first, pages)) return ProtectionResult::kNotRam;
  Runs runs(owner, listener);
  for (uint64_t i = 0; i < pages; ++i) Change(owner, first.raw() + i, rights, runs);
  return ProtectionResult::kDone;
}

ProtectionMap::ListResult ProtectionMap::SetPages(unsigned owner, std::span<const uint64_t> guest_pages, PageRights rights,
                                                  Listener& listener) noexcept {
  if (!PageRights::FromMapFlags(rights.bits(), true).has_value()) return {ProtectionResult::kNotLegal, 0};
  Runs runs(owner, listener);
  size_t done = 0;
  for (const uint64_t page : guest_pages) {
    if (!IsRam(Gpfn(page), 1)) return {ProtectionResult::kNotRam, done};
    Change(owner, page, rights, runs);
    ++done;
  }
  return {ProtectionResult::kDone, done};
}

void ProtectionMap::Reset() noexcept {
  for (unsigned index = 1; index < levels_; ++index) {
    Owner& owner = owners_[index];
    owner.default_bits.store(PageRights::kAllBits, std::memory_order_relaxed);
    owner.default_is_fixed = false;
    for (uint64_t chunk = 0; chunk < table_pages_ / kChunkPages; ++chunk)
      owner.named[chunk].store(false, std::memory_order_relaxed);
    // Reads as zeroes from now on.
    ::madvise(owner.table, table_pages_ / 2, MADV_DONTNEED);
  }
}

}  // namespace vmm
