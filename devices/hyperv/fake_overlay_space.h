// Overlay pages over imaginary RAM of `ram_pages` pages, of which the level may do what `rights` says. Testonly: use it wherever something owns an overlay page.
#ifndef VMM_DEVICES_HYPERV_FAKE_OVERLAY_SPACE_H_
#define VMM_DEVICES_HYPERV_FAKE_OVERLAY_SPACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "devices/hyperv/overlay_page.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"

namespace vmm {

class FakeOverlayPage final : public OverlayPage {
 public:
  FakeOverlayPage(uint64_t ram_pages, const std::map<uint64_t, PageRights>& rights) : ram_pages_(ram_pages), rights_(rights) {}

  [[nodiscard]] std::byte* data() noexcept override { return bytes_.data(); }
  [[nodiscard]] bool MayPlace(Gpfn at, Access access) const noexcept override {
    const auto found = rights_.find(at.raw());
    if (found == rights_.end()) return true;
    return found->second.read() && (access != Access::kReadWrite || found->second.write());
  }
  [[nodiscard]] bool Place(Gpfn at, Access access) noexcept override {
    place_ = at.raw() < ram_pages_ ? std::optional(at) : std::nullopt;
    access_ = access;
    return place_.has_value();
  }
  void Remove() noexcept override { place_.reset(); }
  [[nodiscard]] std::optional<Gpfn> place() const noexcept override { return place_; }
  [[nodiscard]] Access access() const noexcept { return access_; }

 private:
  const uint64_t ram_pages_;
  const std::map<uint64_t, PageRights>& rights_;
  alignas(kPageBytes) std::array<std::byte, kPageBytes> bytes_{};
  std::optional<Gpfn> place_;
  Access access_ = Access::kRead;
};

class FakeOverlaySpace final : public OverlaySpace {
 public:
  static constexpr uint64_t kRamPages = 0x1000;

  [[nodiscard]] absl::StatusOr<std::unique_ptr<OverlayPage>> NewPage() override {
    auto page = std::make_unique<FakeOverlayPage>(kRamPages, rights);
    pages_.push_back(page.get());
    return page;
  }
  // In the order of making; each lives as long as its owner keeps it.
  [[nodiscard]] FakeOverlayPage& page(size_t n) { return *pages_.at(n); }
  [[nodiscard]] size_t page_count() const { return pages_.size(); }

  // What the level may do with RAM, by page; everything where there is none.
  std::map<uint64_t, PageRights> rights;

 private:
  std::vector<FakeOverlayPage*> pages_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_FAKE_OVERLAY_SPACE_H_
