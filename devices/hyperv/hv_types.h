// The small types of the Hyper-V interface, so that a VP index is not taken for a SINT or a time.
//
// Units    HvTicks: 100 ns of partition reference time. VpIndex: dense from 0, the same as KVM's vCPU index and the APIC id.
// Threads  plain values.
// Trust    VpIndex and Vtl may hold any number a guest wrote: who indexes with one has checked it. A Sint is in range.
// Source   Hyper-V TLFS, "Common Types" and "Virtual Processors".
#ifndef VMM_DEVICES_HYPERV_HV_TYPES_H_
#define VMM_DEVICES_HYPERV_HV_TYPES_H_

#include <compare>
#include <cstdint>
#include <optional>

namespace vmm {

class VpIndex final {
 public:
  constexpr explicit VpIndex(uint32_t number) noexcept : number_(number) {}
  [[nodiscard]] constexpr uint32_t raw() const noexcept { return number_; }
  constexpr auto operator<=>(const VpIndex&) const = default;

 private:
  uint32_t number_;
};
inline constexpr VpIndex kHvVpIndexSelf{0xffff'fffe};
inline constexpr VpIndex kHvAnyVp{0xffff'ffff};

// A Virtual Trust Level: 0 the ordinary kernel, 1 the secure kernel. Room is left for 2.
class Vtl final {
 public:
  constexpr explicit Vtl(uint8_t level) noexcept : level_(level) {}
  [[nodiscard]] constexpr uint8_t raw() const noexcept { return level_; }
  constexpr auto operator<=>(const Vtl&) const = default;

 private:
  uint8_t level_;
};
inline constexpr Vtl kVtl0{0};
inline constexpr Vtl kVtl1{1};
inline constexpr uint8_t kHvVtlCount = 3;  // the sizes of arrays; what a partition offers is its configuration's

// A synthetic interrupt source, 0 to 15.
class Sint final {
 public:
  [[nodiscard]] static constexpr std::optional<Sint> From(uint64_t guest_number) noexcept {
    if (guest_number >= kCount) return std::nullopt;
    return Sint(static_cast<uint8_t>(guest_number));
  }
  template <uint8_t number>
  [[nodiscard]] static constexpr Sint Of() noexcept {
    static_assert(number < kCount);
    return Sint(number);
  }
  [[nodiscard]] constexpr uint8_t raw() const noexcept { return number_; }
  constexpr auto operator<=>(const Sint&) const = default;
  static constexpr uint8_t kCount = 16;

 private:
  constexpr explicit Sint(uint8_t number) noexcept : number_(number) {}
  uint8_t number_;
};

class HvTicks final {
 public:
  constexpr HvTicks() noexcept = default;
  constexpr explicit HvTicks(uint64_t ticks) noexcept : ticks_(ticks) {}
  [[nodiscard]] constexpr uint64_t raw() const noexcept { return ticks_; }
  // Wraps: a guest may ask for any period.
  constexpr HvTicks operator+(HvTicks other) const noexcept { return HvTicks(ticks_ + other.ticks_); }
  constexpr HvTicks operator-(HvTicks other) const noexcept { return HvTicks(ticks_ - other.ticks_); }
  constexpr auto operator<=>(const HvTicks&) const = default;
  static constexpr uint64_t kPerSecond = 10'000'000;
  static constexpr uint64_t kNanoseconds = 100;

 private:
  uint64_t ticks_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HV_TYPES_H_
