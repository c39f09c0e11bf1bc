// Page tables that a test writes into guest RAM: the guest's side of a walk. For tests that need addresses to be mapped; tests of
// the walk itself write entries by hand.
//
// Shapes   4 levels, 8-byte entries. Tables are taken from RAM upwards from where the caller says; the top one is the first.
#ifndef VMM_VCPU_FAKE_PAGE_TABLES_H_
#define VMM_VCPU_FAKE_PAGE_TABLES_H_

#include <cstdint>

#include "memory/gpa.h"
#include "memory/guest_memory.h"

namespace vmm {

class FakePageTables final {
 public:
  static constexpr uint64_t kPresent = 1;
  static constexpr uint64_t kWritable = 2;
  static constexpr uint64_t kUser = 4;
  static constexpr uint64_t kAccessed = 0x20;
  static constexpr uint64_t kDirty = 0x40;
  static constexpr uint64_t kNoExecute = uint64_t{1} << 63;
  static constexpr uint64_t kAll = kPresent | kWritable | kUser | kAccessed | kDirty;

  FakePageTables(const GuestMemory& memory, Gpa first) noexcept : memory_(memory), top_(first), next_(first + kPageBytes) {}

  [[nodiscard]] uint64_t cr3() const noexcept { return top_.raw(); }

  // Maps one page; tables on the way are made with all rights and A set.
  void Map(uint64_t linear, uint64_t gpa, uint64_t flags = kAll) noexcept { Put(EntryAt(linear, 1), gpa | flags); }

  // Where the entry of `linear` at `level` is; the tables above it are made.
  [[nodiscard]] Gpa EntryAt(uint64_t linear, unsigned level) noexcept {
    Gpa table = top_;
    for (unsigned l = 4;; --l) {
      const Gpa entry = table + ((linear >> (12 + 9 * (l - 1))) & 511) * 8;
      if (l == level) return entry;
      if ((Get(entry) & kPresent) == 0) {
        Put(entry, next_.raw() | kPresent | kWritable | kUser | kAccessed);
        next_ = next_ + kPageBytes;
      }
      table = Gpa(Get(entry) & 0x000f'ffff'ffff'f000);
    }
  }

  [[nodiscard]] uint64_t Get(Gpa gpa) const noexcept {
    uint64_t value = 0;
    return memory_.ReadObject(gpa, value) ? value : 0;
  }
  void Put(Gpa gpa, uint64_t value) noexcept { static_cast<void>(memory_.WriteObject(gpa, value)); }

 private:
  const GuestMemory& memory_;
  const Gpa top_;
  Gpa next_;
};

}  // namespace vmm

#endif  // VMM_VCPU_FAKE_PAGE_TABLES_H_
