// A level's view for tests: rights and overlays by page; everything is allowed where nothing was said. And vector registers.
#ifndef VMM_VCPU_ACCESS_DECODER_FAKE_LEVEL_VIEW_H_
#define VMM_VCPU_ACCESS_DECODER_FAKE_LEVEL_VIEW_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {

class FakeLevelView final : public LevelView {
 public:
  void Set(uint64_t gpa, PageRights rights) { rights_[gpa / kPageBytes] = rights; }
  void Overlay(uint64_t gpa, const std::byte* page) { overlays_[gpa / kPageBytes] = page; }

  [[nodiscard]] PageRights Rights(Gpfn guest_page) const noexcept override {
    const auto found = rights_.find(guest_page.raw());
    return found == rights_.end() ? PageRights() : found->second;
  }
  [[nodiscard]] const std::byte* Overlay(Gpfn guest_page) const noexcept override {
    const auto found = overlays_.find(guest_page.raw());
    return found == overlays_.end() ? nullptr : found->second;
  }

 private:
  std::map<uint64_t, PageRights> rights_;
  std::map<uint64_t, const std::byte*> overlays_;
};

class FakeVectorState final : public VectorState {
 public:
  std::array<std::array<std::byte, 64>, 32> vectors{};
  std::array<uint64_t, 8> masks{};
  std::array<uint64_t, 8> mmx{};
  std::map<unsigned, Component> components;
  bool broken = false;

  [[nodiscard]] bool Vector(unsigned index, std::span<std::byte, 64> out) noexcept override {
    if (broken || index >= vectors.size()) return false;
    std::ranges::copy(vectors[index], out.begin());
    return true;
  }
  [[nodiscard]] bool Mask(unsigned index, uint64_t& out) noexcept override {
    if (broken || index >= masks.size()) return false;
    out = masks[index];
    return true;
  }
  [[nodiscard]] bool Mmx(unsigned index, uint64_t& out) noexcept override {
    if (broken || index >= mmx.size()) return false;
    out = mmx[index];
    return true;
  }
  [[nodiscard]] bool XsaveComponent(unsigned index, Component& out) noexcept override {
    const auto found = components.find(index);
    if (broken || found == components.end()) return false;
    out = found->second;
    return true;
  }
};

}  // namespace vmm

#endif  // VMM_VCPU_ACCESS_DECODER_FAKE_LEVEL_VIEW_H_
