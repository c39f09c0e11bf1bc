// Guest RAM as the virtual processors of one trust level see it: the mapping that their KVM VM's memory slots use, with protections
// of RAM pages in it, and pages of our own that lie over RAM pages (overlays).
//
// Shapes   one stretch of host addresses per RamRange. An overlay is 4096 bytes of a sealed file of a fixed number of pages; it is mapped over
//          the RAM page in one step, so KVM sees the one or the other, and RAM beneath is never written.
// Threads  Protect, Move, NewPage, DropPage and all of ViewOverlay: any, guarded; one ViewOverlay is for one thread at a time, but data().
//          Counters are atomic. Mapping takes a system call that waits for the process's other mappings, and stops all processors for
//          a moment: for what a guest does seldom.
// Trust    every page number may be the guest's: what is not RAM is refused, whatever it wraps to.
// Errors   Create: Status; FAILED_PRECONDITION where protections are asked for and cannot be. NewPage: RESOURCE_EXHAUSTED past the
//          number given to Create, FAILED_PRECONDITION where CanOverlay is false. Protect: ViewProtect. Place, DropPage: false.
//
// Reserved huge pages (k2MiB, k1GiB) can neither be overlaid nor protected in part: the kernel maps no smaller part of them.
// CanOverlay says so, and whoever configures a guest interface that needs either refuses such memory. Transparent huge pages can; the
// kernel splits one, and only the mapping of it.
//
// A guest's access that the mapping does not allow makes KVM_RUN fail with EFAULT, naming no address: a write to an overlay that is
// not kReadWrite, or what Protect has taken away. So does KVM's own access on the guest's behalf, but for its instruction emulator,
// which shows it as an access to a device at that address.
//
// Protections are mprotect(2) on the view. When it returns no processor uses the old rights: before the kernel changes its page
// tables it calls KVM's MMU notifier, which takes the pages out of the VM's nested page tables and makes every processor of the VM
// that is in guest mode leave and drop its translations, and waits for that; an entry that another processor was about to make from
// the old host mapping is not made, because KVM counts invalidations and looks again. KVM's own copies go through the host's page
// tables, whose translations mprotect drops on all processors as well, and pages that it keeps at hand (kvmclock) are let go by the
// same notifier. An overlay is placed over the page by its own rules: the rights beneath are not asked.
//
// Where the VM takes attributes (PageAttributes), a page without any access is PRIVATE too, unless an overlay lies over it: then the
// fault names the page. Should KVM refuse that when an overlay goes, the mapping alone stops the guest, and its fault has no address.
//
// Each change of access along RAM is one mapping more, and the kernel grants a process 65 530 (vm.max_map_count). So a view is made
// for a number of such pieces, and a change that would need more is refused before anything is done: kTooManyPieces. A guest that
// protects every other page gets as far as half that number of pages. There is no slower way behind it: what cannot be mapped cannot
// be protected from KVM's own accesses, in any way. Ranges that meet are one again at once, in the kernel too.
#ifndef VMM_MEMORY_GUEST_VIEW_H_
#define VMM_MEMORY_GUEST_VIEW_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "memory/gpa.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/page_access.h"
#include "memory/page_access_table.h"
#include "memory/page_attributes.h"
#include "memory/ram_mapping.h"

namespace vmm {

class GuestView;

enum class ViewAccess : uint8_t {
  kReadWrite,
  kReadExecute,  // not told from kRead: nothing but the guest's own page tables denies execution
  kRead,
};

// One page of ours; its view outlives it. Zero when made; the content stays, wherever the page is placed, or not. Destroying removes.
class ViewOverlay final {
 public:
  ViewOverlay(const ViewOverlay&) = delete;
  ViewOverlay& operator=(const ViewOverlay&) = delete;
  ~ViewOverlay();

  // The same address for its whole life, read and write.
  [[nodiscard]] std::byte* data() const noexcept;
  // From its return on the guest sees the page at `guest_page`, and no longer where it was before. Over other overlays there, which
  // come back in turn as those above them go. False: that is not RAM (or the host could not map it), and the page is nowhere.
  [[nodiscard]] bool Place(Gpfn guest_page, ViewAccess access) noexcept;
  // Nowhere from its return on.
  void Remove() noexcept;
  [[nodiscard]] std::optional<Gpfn> place() const noexcept;

 private:
  friend class GuestView;
  ViewOverlay(GuestView& view, uint32_t index) noexcept : view_(view), index_(index) {}
  GuestView& view_;
  const uint32_t index_;
};

enum class ViewProtect : uint8_t {
  kDone,
  kNotRam,         // a page is outside RAM: nothing was done
  kTooManyPieces,  // nothing was done
  kHostRefused,    // the kernel has no memory for it: the first pages are done, the others are as they were
};

class GuestView final {
 public:
  // An overlay may split one mapping in three, and the kernel grants a process 65 530: with as many protected pieces in one view,
  // there are 16 378 left for all else.
  static constexpr uint32_t kMaxOverlayPages = 8192;
  static constexpr uint32_t kMaxProtectedPieces = 32'768;

  // Maps `ram`, which may be closed afterwards. `protected_pieces`: 0 for a view whose pages nobody protects. `attributes`: of the VM
  // that uses the view, where it takes them; called under the view's lock by Protect and as overlays come and go, until neither is.
  static absl::StatusOr<std::unique_ptr<GuestView>> Create(const GuestRam& ram, const MemoryLayout& layout, uint32_t overlay_pages,
                                                           uint32_t protected_pieces = 0, PageAttributes* attributes = nullptr);
  GuestView(const GuestView&) = delete;
  GuestView& operator=(const GuestView&) = delete;
  // No ViewOverlay is left, and no VM uses the mappings.
  ~GuestView();

  // For KVM memory slots only: what lies there changes with each overlay.
  [[nodiscard]] const std::vector<RamMapping>& UnsafeMappings() const noexcept { return mappings_; }

  [[nodiscard]] bool CanOverlay() const noexcept { return RamPageBytes(options_) == kPageBytes; }
  [[nodiscard]] absl::StatusOr<std::unique_ptr<ViewOverlay>> NewPage();

  // --- Protections of RAM; none when made ---

  struct Protected {
    ViewProtect outcome;
    uint64_t pages;  // from `first` on, which have the access now
  };
  // From its return on the guest's processors, and KVM for them, can do no more than `access` with these pages, nor less. Under an
  // overlay it holds when that goes.
  [[nodiscard]] Protected Protect(Gpfn first, uint64_t pages, PageAccess access) noexcept;
  // Whether Protect of the same would find too many pieces.
  [[nodiscard]] bool HasRoomFor(Gpfn first, uint64_t pages, PageAccess access) const noexcept;
  // The access of RAM at `first`, and how many pages from there on, of `pages` at most, have the same. Not RAM: no pages.
  struct AccessRun {
    PageAccess access;
    uint64_t pages;
  };
  [[nodiscard]] AccessRun RunAt(Gpfn first, uint64_t pages) const noexcept;
  // In how many places access changes along RAM.
  [[nodiscard]] uint64_t protected_pieces() const noexcept;
  // RAM pages that may not be both read and written, overlays aside.
  [[nodiscard]] uint64_t protected_pages() const noexcept;
  // --- Pages that are withdrawn from devices, or given back to them: WithdrawnPages, nobody else ---

  // `move` copies [first, first + pages), which is RAM, into another file and says there that it is in it by now: meanwhile nobody
  // writes to them by this view. True: the view shows them from where they are by now, read-only yet, and EndMove is next. False:
  // `move` has said so, or the host has refused, and nothing has changed.
  [[nodiscard]] bool Move(Gpfn first, uint64_t pages, absl::FunctionRef<bool()> move) noexcept;
  // They may be written again, as their protections say.
  void EndMove(Gpfn first, uint64_t pages) noexcept;
  // Odd while pages move. An access that failed where this is odd, or not what it was before the entry, may have failed for that: to be
  // made again.
  [[nodiscard]] uint64_t moves() const noexcept { return moves_.load(std::memory_order_acquire); }

  // Everything may be read and written again. The process ends where the host refuses, as it cannot: pieces only meet.
  void ResetProtections() noexcept;

  // The overlay that is seen at a page now: its bytes, which are there for ever, and what the guest may do with it. Another thread may
  // move it meanwhile.
  struct Seen {
    const std::byte* bytes;
    ViewAccess access;
    bool operator==(const Seen&) const = default;
  };
  [[nodiscard]] std::optional<Seen> OverlayAt(Gpfn guest_page) const noexcept;

  // --- Faults ---

  // For who has to judge an EFAULT. The page may have gone while the processor was on its way out: where none is left now, but
  // overlay_changes differs from before the entry, running again decides.
  [[nodiscard]] bool has_read_only_overlay() const noexcept { return read_only_.load(std::memory_order_acquire) != 0; }
  [[nodiscard]] uint64_t overlay_changes() const noexcept { return changes_.load(std::memory_order_acquire); }

  // Makes KVM forget what it knows of this page (with reserved huge pages: of the huge page), and flush from all processors every
  // translation if it knew anything. The contents stay. False: not RAM.
  [[nodiscard]] bool DropPage(Gpfn guest_page) noexcept;

  // Backs the page tables of [gpa, gpa + bytes), rounded out to pages, in one call in place of a fault for each page. What is not RAM
  // is not backed; it is no error, nor is a kernel that knows no such call (before 5.14).
  void Prefault(Gpa gpa, uint64_t bytes) noexcept;

 private:
  friend class ViewOverlay;
  struct Overlay {
    bool taken = false;
    bool placed = false;
    Gpfn at{0};
    ViewAccess access = ViewAccess::kRead;
    uint64_t order = 0;  // of placing: of several at one page the highest is seen
  };

  explicit GuestView(const GuestRam& ram) : files_(ram.files()), options_(ram.options()) {}
  absl::Status MakeOverlayFile(uint32_t overlay_pages);
  absl::Status MakeProtections(const MemoryLayout& layout, uint32_t overlay_pages, uint32_t protected_pieces);
  void Release(uint32_t index) noexcept;
  // Of several at one page, the one that was placed last.
  [[nodiscard]] const Overlay* SeenLocked(Gpfn page) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Place(uint32_t index, Gpfn guest_page, ViewAccess access) noexcept;
  void Remove(uint32_t index) noexcept;
  std::optional<Gpfn> place(uint32_t index) const noexcept;

  void RemoveLocked(Overlay& overlay) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Maps what is to be seen at `page` now. False: that is not RAM, or the host could not, and nothing has changed.
  [[nodiscard]] bool ShowLocked(Gpfn page) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowAgainLocked(Gpfn page) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool MapRamBack(Gpfn page, uint64_t bytes, PageAccess access) const noexcept;
  [[nodiscard]] PageAccess AccessLocked(Gpfn page) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Pages without overlays whose access is the same and to be another. False: the host refused, and nothing has changed.
  [[nodiscard]] bool ProtectBareLocked(Gpfn first, uint64_t pages, PageAccess access) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The same with overlays over some of them. How many are done.
  [[nodiscard]] uint64_t ProtectRunLocked(Gpfn first, uint64_t pages, PageAccess access) noexcept
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Calls `change` with each stretch of [first, first + pages) of one access that no overlay lies over, while it says true.
  bool ForEachBareLocked(Gpfn first, uint64_t pages, absl::FunctionRef<bool(Gpfn, uint64_t, PageAccess)> change) const noexcept
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those of them that may be written, to `protection`. False: the host has refused.
  bool SetWritableLocked(Gpfn first, uint64_t pages, int protection) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndMoveLocked(Gpfn first, uint64_t pages) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The first page of [first, end) that an overlay lies over, or end.
  [[nodiscard]] uint64_t NextOverlaidLocked(uint64_t first, uint64_t end) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::byte* HostPages(Gpfn guest_page, uint64_t pages) const noexcept;

  // Immutable after Create.
  const std::shared_ptr<const RamFiles> files_;
  const GuestRamOptions options_;
  std::vector<RamMapping> mappings_;
  OwnedFd overlay_fd_;
  std::byte* overlay_bytes_ = nullptr;
  uint32_t max_pieces_ = 0;
  PageAttributes* attributes_ = nullptr;

  mutable Mutex mutex_;
  // Null where nobody protects.
  std::unique_ptr<PageAccessTable> accesses_ ABSL_GUARDED_BY(mutex_) ABSL_PT_GUARDED_BY(mutex_);
  std::vector<Overlay> overlays_ ABSL_GUARDED_BY(mutex_);  // never grows: Place allocates nothing
  uint64_t next_order_ ABSL_GUARDED_BY(mutex_) = 1;
  // Written under the mutex; release: who sees the count sees a mapping at least as new.
  std::atomic<uint32_t> read_only_{0};
  std::atomic<uint64_t> changes_{0};
  std::atomic<uint64_t> moves_{0};
  // The pages between Move and EndMove.
  Gpfn moving_first_ ABSL_GUARDED_BY(mutex_){0};
  uint64_t moving_pages_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_VIEW_H_
