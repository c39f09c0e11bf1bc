#include "vmm/hyperv/refused_access.h"

#include <cstdint>

#include "memory/page_rights.h"

namespace vmm {
namespace {

// One page that allows nothing, and the others as they are, or with everything allowed. Other processors change protections meanwhile:
// asked again, the page might have other rights than a moment before.
class NamedPageView final : public LevelView {
 public:
  enum class Others : uint8_t { kAsTheyAre, kAllowed };
  NamedPageView(const LevelView& view, Gpfn page, Others others) noexcept : view_(view), page_(page), others_(others) {}
  [[nodiscard]] PageRights Rights(Gpfn page) const noexcept override {
    if (page == page_) return PageRights::None();
    return others_ == Others::kAllowed ? PageRights() : view_.Rights(page);
  }
  [[nodiscard]] const std::byte* Overlay(Gpfn page) const noexcept override { return view_.Overlay(page); }

 private:
  const LevelView& view_;
  const Gpfn page_;
  const Others others_;
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
  using Others = NamedPageView::Others;
  const auto decode = [&](const LevelView& by) { return Decode(registers, event, memory, by, vectors); };
  if (!named.has_value()) return {.decoding = decode(view), .agreement = PageAgreement::kNotNamed};
  if (view.Rights(*named) != PageRights::None()) return {.decoding = decode(view), .agreement = PageAgreement::kOutdated};
  const AccessDecoding first = decode(NamedPageView(view, *named, Others::kAsTheyAre));
  if (IsAt(*named, first)) return {.decoding = first, .agreement = PageAgreement::kSame};
  const AccessDecoding there = decode(NamedPageView(view, *named, Others::kAllowed));
  if (IsAt(*named, there)) return {.decoding = there, .agreement = PageAgreement::kOtherFirst};
  return {.decoding = first, .agreement = PageAgreement::kUnexplained};
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
