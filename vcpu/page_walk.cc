#include "vcpu/page_walk.h"

#include <algorithm>
#include <atomic>

namespace vmm {
namespace {

constexpr uint64_t kCr0Wp = 1u << 16;
constexpr uint64_t kCr0Pg = 1u << 31;
constexpr uint64_t kCr4Pse = 1u << 4;
constexpr uint64_t kCr4Pae = 1u << 5;
constexpr uint64_t kCr4La57 = 1u << 12;
constexpr uint64_t kCr4Smep = 1u << 20;
constexpr uint64_t kCr4Smap = 1u << 21;
constexpr uint64_t kEferLma = 1u << 10;
constexpr uint64_t kEferNxe = 1u << 11;
constexpr uint64_t kRflagsAc = 1u << 18;

constexpr uint64_t kPresent = 1u << 0;
constexpr uint64_t kWritable = 1u << 1;
constexpr uint64_t kUser = 1u << 2;
constexpr uint64_t kPwtPcd = 3u << 3;
constexpr uint64_t kAccessed = 1u << 5;
constexpr uint64_t kDirty = 1u << 6;
constexpr uint64_t kLarge = 1u << 7;  // PS; in an entry that maps 4 KiB: PAT
constexpr uint64_t kLargePat = 1u << 12;
constexpr uint64_t kNoExecute = uint64_t{1} << 63;

constexpr uint32_t kErrorPresent = 1u << 0;
constexpr uint32_t kErrorWrite = 1u << 1;
constexpr uint32_t kErrorUser = 1u << 2;
constexpr uint32_t kErrorReserved = 1u << 3;
constexpr uint32_t kErrorFetch = 1u << 4;

// Bits `low` to `high`, both included; none where low is above high.
constexpr uint64_t Bits(unsigned high, unsigned low) noexcept {
  return low > high ? 0 : (~uint64_t{0} >> (63 - high)) & (~uint64_t{0} << low);
}

enum class Mode : uint8_t { k32Bit, kPae, kLong };

// One load of the width of the entry: the guest may change it between two. An entry never crosses a page.
template <typename T>
bool LoadEntry(const GuestMemory& memory, Gpa gpa, uint64_t& value) noexcept {
  std::byte* const host = memory.UnsafeHost(gpa, sizeof(T));
  if (host == nullptr) return false;
  // relaxed: the guest's own ordering of page-table writes is by flushes, which we have none of to keep.
  value = std::atomic_ref(*reinterpret_cast<T*>(host)).load(std::memory_order_relaxed);
  return true;
}

template <typename T>
bool ReplaceEntry(const GuestMemory& memory, const TableAccess& access) noexcept {
  T expected = static_cast<T>(access.value);
  return memory.CompareExchange(access.gpa, expected, static_cast<T>(access.new_value)) && expected == static_cast<T>(access.value);
}

class Walker final {
 public:
  Walker(const GuestMemory& memory, const PagingState& paging, WalkAccess access, WalkPrivilege privilege) noexcept
      : memory_(memory),
        paging_(paging),
        access_(access),
        privilege_(privilege),
        physical_bits_(std::clamp<unsigned>(paging.physical_bits, 32, 52)),
        nx_((paging.efer & kEferNxe) != 0) {}

  PageWalk Walk(uint64_t linear) noexcept {
    if ((paging_.cr0 & kCr0Pg) == 0) {
      walk_.gpa = Gpa(linear & 0xffff'ffff);
      return walk_;
    }
    if (!IsCanonical(paging_, linear)) {
      walk_.fault = WalkFault::kNotCanonical;
      return walk_;
    }
    if ((paging_.efer & kEferLma) != 0) {
      mode_ = Mode::kLong;
      Descend(linear, paging_.cr3 & Bits(51, 12), (paging_.cr4 & kCr4La57) != 0 ? 5 : 4);
    } else if ((paging_.cr4 & kCr4Pae) != 0) {
      mode_ = Mode::kPae;
      Descend(linear & 0xffff'ffff, paging_.cr3 & Bits(31, 5), 3);
    } else {
      mode_ = Mode::k32Bit;
      Descend(linear & 0xffff'ffff, paging_.cr3 & Bits(31, 12), 2);
    }
    return walk_;
  }

 private:
  void Descend(uint64_t linear, uint64_t table, unsigned level) noexcept {
    const unsigned index_bits = mode_ == Mode::k32Bit ? 10 : 9;
    const unsigned entry_bytes = mode_ == Mode::k32Bit ? 4 : 8;
    for (;; --level) {
      const unsigned shift = 12 + index_bits * (level - 1);
      const bool pdpte = mode_ == Mode::kPae && level == 3;
      const uint64_t index = (linear >> shift) & (pdpte ? 3 : Bits(index_bits - 1, 0));
      const Gpa gpa(table + index * entry_bytes);
      uint64_t entry = 0;
      const bool ram = entry_bytes == 4 ? LoadEntry<uint32_t>(memory_, gpa, entry) : LoadEntry<uint64_t>(memory_, gpa, entry);
      Add({.gpa = gpa, .bytes = static_cast<uint8_t>(entry_bytes), .level = static_cast<uint8_t>(level), .value = entry});
      if (!ram) {
        walk_.fault = WalkFault::kTableNotRam;
        return;
      }
      if ((entry & kPresent) == 0) return Fail(WalkFault::kNotPresent, 0);
      const bool leaf = level == 1 || (IsLarge(entry, level) && !pdpte);
      if ((entry & Reserved(level, leaf, pdpte)) != 0) return Fail(WalkFault::kReservedBit, kErrorPresent | kErrorReserved);
      if (!pdpte) {
        writable_ = writable_ && (entry & kWritable) != 0;
        user_ = user_ && (entry & kUser) != 0;
        no_execute_ = no_execute_ || (nx_ && mode_ != Mode::k32Bit && (entry & kNoExecute) != 0);
      }
      if (!leaf) {
        if (!pdpte && (entry & kAccessed) == 0) AddWrite(entry | kAccessed);
        table = entry & (mode_ == Mode::k32Bit ? Bits(31, 12) : Bits(51, 12));
        continue;
      }
      if (!Permitted()) return Fail(WalkFault::kProtection, kErrorPresent);
      const uint64_t updated = entry | kAccessed | (access_ == WalkAccess::kWrite ? kDirty : 0);
      if (updated != entry) AddWrite(updated);
      const uint64_t offset = linear & Bits(shift - 1, 0);
      const uint64_t frame = mode_ != Mode::k32Bit ? entry & Bits(51, shift)
                             : level == 1          ? entry & Bits(31, 12)
                                                   : (entry & Bits(31, 22)) | (entry & Bits(20, 13)) << 19;  // PSE-36
      walk_.gpa = Gpa(frame | offset);
      walk_.page_bytes = uint64_t{1} << shift;
      walk_.pat_index =
          static_cast<uint8_t>((entry & kPwtPcd) >> 3 | ((entry & (level == 1 ? kLarge : kLargePat)) != 0 ? 4u : 0u));
      return;
    }
  }

  [[nodiscard]] bool IsLarge(uint64_t entry, unsigned level) const noexcept {
    if ((entry & kLarge) == 0) return false;
    if (mode_ == Mode::k32Bit) return (paging_.cr4 & kCr4Pse) != 0;
    return level == 2 || (level == 3 && paging_.gigabyte_pages);
  }

  [[nodiscard]] uint64_t Reserved(unsigned level, bool leaf, bool pdpte) const noexcept {
    if (mode_ == Mode::k32Bit) {
      // A 4 MiB page: bits 20:13 are address bits 39:32, as far as there are such.
      return level == 2 && leaf ? Bits(21, 13 + std::min(physical_bits_, 40u) - 32) : 0;
    }
    uint64_t reserved = Bits(51, physical_bits_);
    if (mode_ == Mode::kPae) reserved |= Bits(62, 52);
    if (pdpte) return reserved | kNoExecute | Bits(8, 5) | Bits(2, 1);
    if (!nx_) reserved |= kNoExecute;
    if (leaf && level > 1) {
      reserved |= Bits(12 + 9 * (level - 1) - 1, 13);
    } else if (level > 3 || (level == 3 && !leaf)) {
      reserved |= kLarge;  // set at level 3 only where 1 GiB pages are not offered
    }
    return reserved;
  }

  [[nodiscard]] bool Permitted() const noexcept {
    if (access_ == WalkAccess::kExecute && no_execute_) return false;
    const bool user_mode = privilege_ == WalkPrivilege::kUser;
    if (user_mode && !user_) return false;
    if (access_ == WalkAccess::kWrite && !writable_ && (user_mode || (paging_.cr0 & kCr0Wp) != 0)) return false;
    if (user_mode || !user_ || privilege_ == WalkPrivilege::kExempt) return true;
    if (access_ == WalkAccess::kExecute) return (paging_.cr4 & kCr4Smep) == 0;
    const bool lifted = privilege_ == WalkPrivilege::kSupervisor && (paging_.rflags & kRflagsAc) != 0;
    return (paging_.cr4 & kCr4Smap) == 0 || lifted;
  }

  void Fail(WalkFault fault, uint32_t code) noexcept {
    walk_.fault = fault;
    walk_.error_code = code;
    if (access_ == WalkAccess::kWrite) walk_.error_code |= kErrorWrite;
    if (privilege_ == WalkPrivilege::kUser) walk_.error_code |= kErrorUser;
    const bool tells_fetches = (nx_ && mode_ != Mode::k32Bit) || (paging_.cr4 & kCr4Smep) != 0;
    if (access_ == WalkAccess::kExecute && tells_fetches) walk_.error_code |= kErrorFetch;
  }

  void Add(const TableAccess& access) noexcept { walk_.access_list[walk_.access_count++] = access; }

  // Of the entry that was read last.
  void AddWrite(uint64_t new_value) noexcept {
    TableAccess access = walk_.access_list[walk_.access_count - 1];
    access.write = true;
    access.new_value = new_value;
    Add(access);
  }

  const GuestMemory& memory_;
  const PagingState& paging_;
  const WalkAccess access_;
  const WalkPrivilege privilege_;
  const unsigned physical_bits_;
  const bool nx_;
  Mode mode_ = Mode::k32Bit;
  bool writable_ = true;
  bool user_ = true;
  bool no_execute_ = false;
  PageWalk walk_;
};

}  // namespace

unsigned LinearBits(const PagingState& paging) noexcept {
  if ((paging.efer & kEferLma) == 0) return 32;
  return (paging.cr4 & kCr4La57) != 0 ? 57 : 48;
}

bool IsCanonical(const PagingState& paging, uint64_t linear) noexcept {
  const unsigned bits = LinearBits(paging);
  if (bits == 32) return linear >> 32 == 0;
  const unsigned unused = 64 - bits;
  return static_cast<uint64_t>(static_cast<int64_t>(linear << unused) >> unused) == linear;
}

PageWalk WalkPageTables(const GuestMemory& memory, const PagingState& paging, uint64_t linear, WalkAccess access,
                        WalkPrivilege privilege) noexcept {
  return Walker(memory, paging, access, privilege).Walk(linear);
}

bool SetAccessedDirty(const GuestMemory& memory, const PageWalk& walk) noexcept {
  for (const TableAccess& access : walk.accesses()) {
    if (!access.write) continue;
    if (!(access.bytes == 4 ? ReplaceEntry<uint32_t>(memory, access) : ReplaceEntry<uint64_t>(memory, access))) return false;
  }
  return true;
}

}  // namespace vmm
