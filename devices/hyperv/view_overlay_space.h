// Overlay pages in a real view of guest RAM: ViewOverlay as the OverlayPage that this room's contracts speak of.
//
// Shapes   as memory/guest_view.h.
// Threads  as overlay_page.h.
// Errors   NewPage: as GuestView::NewPage.
#ifndef VMM_DEVICES_HYPERV_VIEW_OVERLAY_SPACE_H_
#define VMM_DEVICES_HYPERV_VIEW_OVERLAY_SPACE_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "devices/hyperv/overlay_page.h"
#include "memory/gpa.h"
#include "memory/guest_view.h"
#include "memory/level_memory.h"
#include "memory/page_rights.h"

namespace vmm {

class ViewOverlayPage final : public OverlayPage {
 public:
  // `memory` outlives it.
  ViewOverlayPage(std::unique_ptr<ViewOverlay> overlay, const LevelMemory& memory) noexcept
      : overlay_(std::move(overlay)), memory_(memory) {}

  [[nodiscard]] std::byte* data() noexcept override { return overlay_->data(); }
  [[nodiscard]] bool MayPlace(Gpfn at, Access access) const noexcept override {
    const PageRights rights = memory_.Rights(at);
    return rights.read() && (access != Access::kReadWrite || rights.write());
  }
  [[nodiscard]] bool Place(Gpfn at, Access access) noexcept override { return overlay_->Place(at, Translate(access)); }
  void Remove() noexcept override { overlay_->Remove(); }
  [[nodiscard]] std::optional<Gpfn> place() const noexcept override { return overlay_->place(); }

 private:
  static constexpr ViewAccess Translate(Access access) noexcept {
    switch (access) {
      case Access::kReadWrite:
        return ViewAccess::kReadWrite;
      case Access::kReadExecute:
        return ViewAccess::kReadExecute;
      case Access::kRead:
        break;
    }
    return ViewAccess::kRead;
  }

  const std::unique_ptr<ViewOverlay> overlay_;
  const LevelMemory& memory_;
};

class ViewOverlaySpace final : public OverlaySpace {
 public:
  // Both are of the level whose pages these will be, and outlive the space and its pages.
  ViewOverlaySpace(GuestView& view, const LevelMemory& memory) noexcept : view_(view), memory_(memory) {}

  [[nodiscard]] absl::StatusOr<std::unique_ptr<OverlayPage>> NewPage() override {
    auto overlay = view_.NewPage();
    if (!overlay.ok()) return overlay.status();
    return std::make_unique<ViewOverlayPage>(*std::move(overlay), memory_);
  }

 private:
  GuestView& view_;
  const LevelMemory& memory_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VIEW_OVERLAY_SPACE_H_
