// Makes the protection map true: what it says of a level is put into that level's view of RAM (GuestView), which keeps KVM's
// attributes of pages in step where the VM has them.
//
// Two ways, and both can say of a page: no access; reading and executing; everything. Nothing else, neither without execution nor
// with execution in one mode only, can be enforced by them. Such a protection is refused, or rounded up to the next that can,
// whichever Create was told; Enforced says what it came to.
//   host mapping       the view's mapping alone. A refused access ends KVM_RUN with EFAULT and no address.
//   private attribute  the view's mapping, and KVM's PRIVATE attribute where there is no access: KVM_EXIT_MEMORY_FAULT with the address.
// The mapping is kept in both, since it is what stops KVM itself when it acts for the guest: its instruction emulator, kvmclock, steal
// time and other pages that MSRs name.
//
// Shapes   owners and levels are VTL numbers. An owner's protections restrict all levels below it.
// Units    page numbers are Gpfn.
// Threads  Protect, SetDefault, Reset: any, one at a time by a lock of its own. Lookups and stats: any, without it.
// Trust    page numbers and rights are the guest's.
// Errors   ProtectStatus. Nothing allocates or logs; work is in proportion to the pages that were named.
// Source   Hyper-V TLFS, "Memory Access Protections", "HvCallModifyVtlProtectionMask".
//
// When Protect returns, for the pages that it says are done:
// - no processor of a level below uses the old rights: GuestView::Protect says why;
// - no access of the monitor's for such a level does (LevelMemory), and those that were under way have ended (AccessGate);
// - no device does: what VTL0 may not write is out of their reach (WithdrawnPages);
// - the map says the new rights. It is changed last: a processor that faults in between finds that the map allows what it did, and
//   tries again until the map has followed. So a fault that nothing explains is never an error.
#ifndef VMM_MEMORY_PROTECTION_ENFORCER_H_
#define VMM_MEMORY_PROTECTION_ENFORCER_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "memory/access_gate.h"
#include "memory/gpa.h"
#include "memory/guest_view.h"
#include "memory/page_access.h"
#include "memory/page_rights.h"
#include "memory/protection_map.h"
#include "memory/withdrawn_pages.h"

namespace vmm {

// What is done with a protection that cannot be enforced.
enum class Unenforceable : uint8_t { kRefuse, kRound };

enum class ProtectStatus : uint8_t {
  kDone,
  kNotRam,          // a page is outside RAM
  kNotLegal,        // no combination that PageRights::FromMapFlags has
  kDefaultIsFixed,
  kNotEnforceable,  // and rounding was not allowed
  kTooManyPieces,   // the view would fall into more pieces than it was made for: GuestView
  kHostRefused,     // the host's kernel has no memory for it
};

class ProtectionEnforcer final {
 public:
  // The nearest rights that can be enforced and take nothing away from `rights`.
  static constexpr PageRights RoundUp(PageRights rights) noexcept { return RightsOf(AccessOf(rights)); }
  static constexpr PageAccess AccessOf(PageRights rights) noexcept {
    if (rights.write()) return PageAccess::kReadWrite;
    return rights == PageRights::None() ? PageAccess::kNone : PageAccess::kRead;
  }
  static constexpr PageRights RightsOf(PageAccess access) noexcept {
    switch (access) {
      case PageAccess::kReadWrite: return PageRights();
      case PageAccess::kRead: return PageRights(PageRights::kRead | PageRights::kKernelExecute | PageRights::kUserExecute);
      case PageAccess::kNone: break;
    }
    return PageRights::None();
  }

  // All of it outlives this; nothing is protected yet, and from here on map and views' protections are changed through this only.
  // `views`: of VTL0 and on, all levels but the highest, which nobody restricts; made with pieces. `withdrawn`: where devices have RAM.
  static absl::StatusOr<std::unique_ptr<ProtectionEnforcer>> Create(ProtectionMap& map, std::vector<GuestView*> views,
                                                                    Unenforceable unenforceable, WithdrawnPages* withdrawn = nullptr);
  ProtectionEnforcer(const ProtectionEnforcer&) = delete;
  ProtectionEnforcer& operator=(const ProtectionEnforcer&) = delete;

  // --- Changes; 1 <= owner <= the number of `views` ---

  // As ModifyVtlProtectionMask lists them; pages in a row are changed together. The first `done` pages are protected so; the one behind
  // them, or one in a row with it, is why it stopped, and it and all later ones are as they were.
  struct Result {
    ProtectStatus status;
    size_t done;
  };
  Result Protect(unsigned owner, PageRights rights, std::span<const uint64_t> guest_pages) noexcept;
  // Of all pages that the owner never named; once. Not done: nothing has changed. A default has reading and writing, or it is
  // kNotLegal: the interface has no other, and so no view changes by it.
  ProtectStatus SetDefault(unsigned owner, PageRights rights) noexcept;
  // Nothing is protected any more, for a machine that starts again. No processor runs.
  void Reset() noexcept;

  // --- Lookups ---

  // What a level may do with a page as it is enforced: the map's rights, rounded up. For who explains a fault.
  [[nodiscard]] PageRights Enforced(unsigned level, Gpfn guest_page) const noexcept { return RoundUp(map_.Rights(level, guest_page)); }
  [[nodiscard]] const ProtectionMap& map() const noexcept { return map_; }
  // False: no page was ever protected. A hint: another thread may protect the first meanwhile.
  [[nodiscard]] bool any() const noexcept { return pages_.load(std::memory_order_relaxed) != 0; }
  // Odd while Protect is under way: a fault that nothing explains may be of what it has changed, and the map does not say yet.
  [[nodiscard]] uint64_t changes() const noexcept { return changes_.load(std::memory_order_acquire); }
  // For LevelMemory.
  [[nodiscard]] AccessGate& gate() noexcept { return gate_; }

  struct Stats {
    uint64_t pages;            // protected by Protect, each time
    uint64_t runs;             // of pages in a row with one access: each a system call or two, if it was not so already
    uint64_t rounded;          // pages of Protect, and defaults, whose rights were rounded for some level
    uint64_t not_enforceable;  // calls that ended so
    uint64_t too_many_pieces;
    uint64_t host_refused;
    uint64_t protected_pages;  // now, as it is enforced: of all views
    uint64_t withdrawn_pages;  // from devices, now
    uint64_t written_pages;    // of those that were: WithdrawnPages::Stats
  };
  [[nodiscard]] Stats stats() const noexcept;

 private:
  // Pages in a row for which the same is to be done.
  struct Run {
    uint64_t first = 0;
    uint64_t pages = 0;
    std::array<PageAccess, ProtectionMap::kMaxLevels> access{};  // by level
    bool rounded = false;
  };

  ProtectionEnforcer(ProtectionMap& map, std::vector<GuestView*> views, Unenforceable unenforceable, WithdrawnPages* withdrawn)
      : map_(map), views_(std::move(views)), unenforceable_(unenforceable), withdrawn_(withdrawn) {}

  [[nodiscard]] bool MayEnforce(PageRights rights) const noexcept {
    return unenforceable_ == Unenforceable::kRound || RoundUp(rights) == rights;
  }
  // What is to be enforced at one page once `owner` says `rights`.
  [[nodiscard]] Run PlanLocked(unsigned owner, PageRights rights, uint64_t page) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] Result FinishRunLocked(unsigned owner, PageRights rights, const Run& run) noexcept
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What devices may do with [first, first + pages). How many are done.
  [[nodiscard]] uint64_t SetForDevicesLocked(uint64_t first, uint64_t pages, PageAccess access) noexcept
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RestoreForDevicesLocked(uint64_t first, uint64_t pages) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Back to what the map says.
  void RestoreLocked(unsigned level, uint64_t first, uint64_t pages) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountFailure(ProtectStatus status) noexcept;

  ProtectionMap& map_;
  const std::vector<GuestView*> views_;
  const Unenforceable unenforceable_;
  WithdrawnPages* const withdrawn_;  // null where no device has RAM
  AccessGate gate_;
  Mutex mutex_;  // of changes
  std::atomic<uint64_t> changes_{0};  // release: who sees it even sees the map
  // Counters: relaxed, they order nothing; written under the mutex.
  std::atomic<uint64_t> pages_{0};
  std::atomic<uint64_t> runs_{0};
  std::atomic<uint64_t> rounded_{0};
  std::atomic<uint64_t> not_enforceable_{0};
  std::atomic<uint64_t> too_many_pieces_{0};
  std::atomic<uint64_t> host_refused_{0};
};

}  // namespace vmm

#endif  // VMM_MEMORY_PROTECTION_ENFORCER_H_
