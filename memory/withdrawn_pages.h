// Pages of guest RAM that are taken out of devices' reach while the guest runs, and given back to them.
//
// A device process has the file that RAM is in, and maps it: nothing that this process does to its own mappings takes that away, and
// nothing can be asked of a process that may have been taken over. So the page goes, not the device's right to it: its content moves into
// another file, which no device is given, and everybody in this process maps it from there. What devices have then at that address is
//   of a page that VTL0 may not read     zeros, and what devices write there themselves
//   of a page that VTL0 may only read    a copy of when its protection was last changed; what devices write to it, nobody else sees
// Neither is told to the device or to the guest, whose driver finds its request done. What a device has written to a place of zeros is seen
// when the page comes back, and counted.
//
// Invariants
//   1. A page is in one file for all levels and for the monitor, but for the moment of its move.
//   2. Nothing that a level or the monitor writes is lost by a move. While a page is copied no view lets it be written, and the monitor's
//      own writes wait. A view lets it be written again only when all others, and the monitor, show its new place; so what one level
//      stores, another never misses.
//   3. VTL0 is restricted by its view before a page leaves the devices' file, and until it is back in it: what devices have is never less
//      than what VTL0 has, and never more at the end of a change.
//   4. What a device writes while a page moves is in its copy or not; later, never.
//
// Shapes   runs of pages in one range of RAM. Those that are reserved from devices are in their own file already and stay there.
// Units    page numbers are Gpfn.
// Threads  Set: one at a time, by its caller's lock (ProtectionEnforcer's); takes the monitor's writes, then the views' locks from VTL0 up.
//          Stats: any. Nothing here waits for who has the devices' file: no lock of that file is taken, which one of them could hold for
//          ever (so its place is cleared, not given back to the host: a hole would take one).
// Trust    what is in the devices' file is read by whoever has been given it, and nothing in it is taken for anything but data.
// Errors   Create: Status. Set: fewer pages than were asked for, where the host has refused the next. Where a change fails after devices
//          have been given a page back, it is withdrawn again with what it has by then.
// Memory   a page that is withdrawn is there twice. The second is neither taken ahead nor locked where RAM is (GuestRamOptions), and is not
//          counted by who compares RAM with what the host has (memory.overcommit).
#ifndef VMM_MEMORY_WITHDRAWN_PAGES_H_
#define VMM_MEMORY_WITHDRAWN_PAGES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/page_access.h"
#include "memory/page_bits.h"

namespace vmm {

class WithdrawnPages final {
 public:
  // How many mappings a border between pages that are withdrawn and others can cost this process: in each view, and in the monitor's.
  [[nodiscard]] static constexpr uint32_t MappingsForABorder(size_t views) noexcept { return static_cast<uint32_t>(views) + 1; }

  // Of RAM that is withdrawable. `memory` and `views`, of all levels, outlive this. `pieces`: how many borders there will be at most.
  static absl::StatusOr<std::unique_ptr<WithdrawnPages>> Create(GuestRam& ram, const MemoryLayout& layout, const GuestMemory& memory,
                                                                std::vector<GuestView*> views, uint32_t pieces);
  WithdrawnPages(const WithdrawnPages&) = delete;
  WithdrawnPages& operator=(const WithdrawnPages&) = delete;
  ~WithdrawnPages();

  // What devices may do with [first, first + pages), of one range of RAM: what VTL0 may. How many of them are done, from `first` on.
  // Requires: VTL0's view lets none of them be written yet, or no longer.
  [[nodiscard]] uint64_t Set(Gpfn first, uint64_t pages, PageAccess access) noexcept;
  // All may be used by devices again, with what the pages hold: no secret any more, where that matters. No processor runs.
  void Reset() noexcept;

  struct Stats {
    uint64_t pages;  // withdrawn now
    uint64_t moved;  // either way
    // That VTL0 may not read, and that a device has written to in its file since they were withdrawn, or said again to be.
    uint64_t written;
  };
  // Reads all places that were cleared: for now and then.
  [[nodiscard]] Stats stats() const noexcept;

 private:
  WithdrawnPages(std::shared_ptr<RamFiles> files, const MemoryLayout& layout, const GuestMemory& memory, std::vector<GuestView*> views)
      : files_(std::move(files)),
        layout_(layout),
        memory_(memory),
        views_(std::move(views)),
        cleared_(files_->bytes() / kPageBytes) {}
  // Of one piece and one file. False: the host has refused, and nothing has changed.
  [[nodiscard]] bool Move(Gpfn first, uint64_t ram_offset, uint64_t bytes, bool withdraw) noexcept;
  [[nodiscard]] bool MoveBehind(size_t view, Gpfn first, uint64_t ram_offset, uint64_t bytes, bool withdraw) noexcept;
  // Of a stretch of one piece: what devices have there was cleared, or is not any more; counts what they have written.
  void Clear(uint64_t ram_offset, uint64_t bytes) noexcept;
  void ForgetCleared(uint64_t ram_offset, uint64_t bytes) noexcept;
  // Pages that were cleared, and are not zeros.
  [[nodiscard]] uint64_t WrittenIn(uint64_t ram_offset, uint64_t bytes) const noexcept;
  // Where a stretch of one piece is in either file.
  [[nodiscard]] std::byte* OfDevices(uint64_t ram_offset) const noexcept;
  [[nodiscard]] std::byte* Withdrawn(uint64_t ram_offset) const noexcept;

  const std::shared_ptr<RamFiles> files_;
  const MemoryLayout layout_;
  const GuestMemory& memory_;
  const std::vector<GuestView*> views_;
  // Both files, whole. Nothing stays mapped in here: pages are touched to be copied only.
  std::byte* of_devices_ = nullptr;
  std::byte* withdrawn_ = nullptr;
  uint64_t file_bytes_ = 0;
  PageBits cleared_;  // withdrawn, and cleared for devices: for counts alone
  std::atomic<uint64_t> pages_{0};
  std::atomic<uint64_t> moved_{0};
  std::atomic<uint64_t> written_{0};  // of those that are not cleared any more
};

}  // namespace vmm

#endif  // VMM_MEMORY_WITHDRAWN_PAGES_H_
