#include "vmm/hyperv/refused_access.h"

#include "memory/page_rights.h"

namespace vmm {
namespace {

// One page as it is, and everything allowed elsewhere.
class OnePageView final : public LevelView {
 public:
  OnePageView(const LevelView& view, Gpfn page) noexcept : view_(view), page_(page) {}
  [[nodiscard]] PageRights Rights(Gpfn page) const noexcept override { return page == page_ ? view_.Rights(page) : PageRights(); }
  [[nodiscard]] const std::byte* Overlay(Gpfn page) const noexcept override { return view_.Overlay(page); }

 private:
  const LevelView& view_;
  const Gpfn page_;
};

AccessDecoding Decode(const AccessRegisters& registers, const std::optional<AccessEvent>& event, const GuestMemory& memory,
                      const LevelView& view, VectorState& vectors) noexcept {
  if (event.has_value()) {
    const AccessDecoding delivery = DecodeEventAccess(registers, *event, memory, view);
    if (delivery.finding == AccessFinding::kViolation) return delivery;
  }
  return DecodeAccess(registers, memory, view, vectors);
}

bool IsAt(Gpfn page, const AccessDecoding& decoding) noexcept {
  return decoding.finding == AccessFinding::kViolation && decoding.violation.gpa.page() == page;
}

}  // namespace

RefusedAccess FindRefusedAccess(const AccessRegisters& registers, const std::optional<AccessEvent>& event, const GuestMemory& memory,
                                const LevelView& view, VectorState& vectors, std::optional<Gpfn> named) noexcept {
  RefusedAccess found{.decoding = Decode(registers, event, memory, view, vectors)};
  if (!named.has_value()) return found;
  if (view.Rights(*named) != PageRights::None()) {
    found.agreement = PageAgreement::kOutdated;
  } else if (IsAt(*named, found.decoding)) {
    found.agreement = PageAgreement::kSame;
  } else {
    const AccessDecoding there = Decode(registers, event, memory, OnePageView(view, *named), vectors);
    found.agreement = IsAt(*named, there) ? PageAgreement::kOtherFirst : PageAgreement::kUnexplained;
    if (found.agreement == PageAgreement::kOtherFirst) found.decoding = there;
  }
  return found;
}

AccessViolation ViolationAt(Gpfn named, const AccessDecoding& decoding) noexcept {
  AccessViolation violation = decoding.violation;
  violation.gpa = Gpa(named);
  violation.gva.reset();
  violation.kind = AccessKind::kRead;
  violation.page_table = false;
  return violation;
}

}  // namespace vmm
