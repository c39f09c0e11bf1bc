// A page of the hypervisor's that lies over a page of guest memory where the guest says: message page, event page, hypercall
// page, reference TSC page, VP assist page. What was beneath comes back when it goes.
//
// Shapes   4096 bytes, ours; zero when made, and kept for ever after, wherever the page is and whether or not it is anywhere.
// Units    Gpfn: pages of 4096 bytes.
// Threads  Place, Remove, place: one thread at a time, with all virtual processors as they are (running). data: any; it stays
//          valid and the same memory while the OverlayPage lives, so who writes to it need not know where the guest sees it, or
//          if.
// Trust    the Gpfn is the guest's, any number. The content is writable by the guest if placed so: load a field once, check the
//          copy.
// Errors   Place: false, an outcome that the specification foresees. NewPage: Status, at set-up only.
// Source   Hyper-V TLFS, "Overlay Pages" and "Overlay GPA Pages"; it says nothing of MayPlace, which is OpenVMM's #GP.
#ifndef VMM_DEVICES_HYPERV_OVERLAY_PAGE_H_
#define VMM_DEVICES_HYPERV_OVERLAY_PAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "memory/gpa.h"

namespace vmm {

class OverlayPage {
 public:
  enum class Access : uint8_t { kReadWrite, kReadExecute, kRead };  // the guest's; ours is always read and write

  OverlayPage() = default;
  virtual ~OverlayPage() = default;
  OverlayPage(const OverlayPage&) = delete;
  OverlayPage& operator=(const OverlayPage&) = delete;

  [[nodiscard]] virtual std::byte* data() noexcept = 0;
  // Whether the level whose page this is may do with the RAM at `at` what it could do with the page there: who may only read and
  // execute a page of RAM must not have one over it that it can fill. Asked before the guest's wish to place it is followed; what
  // is placed stays, whatever becomes of the rights beneath. True where that is not RAM. Reading is enough to execute.
  [[nodiscard]] virtual bool MayPlace(Gpfn at, Access access) const noexcept = 0;
  // The page is at `at` from here on, and no longer where it was. False: that is not RAM, and the page is nowhere. Which of two
  // overlays at one place is seen is not defined; when one goes, the other is seen.
  [[nodiscard]] virtual bool Place(Gpfn at, Access access) noexcept = 0;
  // The page is nowhere.
  virtual void Remove() noexcept = 0;
  [[nodiscard]] virtual std::optional<Gpfn> place() const noexcept = 0;
};

// Where the overlay pages of one VTL's view of memory come from; outlives them all.
class OverlaySpace {
 public:
  virtual ~OverlaySpace() = default;
  [[nodiscard]] virtual absl::StatusOr<std::unique_ptr<OverlayPage>> NewPage() = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_OVERLAY_PAGE_H_
