// Which I/O ports of lower levels a level wants to decide about: HvCallInstallIntercept, for the whole partition.
//
// Shapes   for each level that asks, two bits a port: 16 KiB, whatever a guest asks for.
// Threads  any; atomic. What was installed before an access began is seen by it: the VP that installs leaves its hypercall, others are
//          told by the guest (relaxed: nothing else is ordered by these bits).
// Trust    ports are the guest's, all 65536 of them are right. Levels are below kHvVtlCount.
// Errors   none.
// Source   Hyper-V TLFS, "HvCallInstallIntercept".
#ifndef VMM_DEVICES_HYPERV_VSM_IO_PORT_INTERCEPTS_H_
#define VMM_DEVICES_HYPERV_VSM_IO_PORT_INTERCEPTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_types.h"

namespace vmm {

class IoPortIntercepts final {
 public:
  IoPortIntercepts() = default;
  IoPortIntercepts(const IoPortIntercepts&) = delete;
  IoPortIntercepts& operator=(const IoPortIntercepts&) = delete;

  // Replaces what `owner` had asked for of this port; neither: nothing any more.
  void Install(Vtl owner, uint16_t port, bool reads, bool writes) noexcept;
  // The lowest level above `by` that wants to hear of an access to any of the `bytes` ports from `port` on.
  [[nodiscard]] std::optional<Vtl> Find(Vtl by, uint16_t port, uint8_t bytes, bool write) const noexcept;
  // False: none was ever installed.
  [[nodiscard]] bool any() const noexcept { return any_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kPorts = 0x1'0000;
  using Bits = std::array<std::atomic<uint64_t>, kPorts / 64>;
  struct Owner {
    Bits reads{};
    Bits writes{};
  };
  static void Assign(Bits& bits, uint16_t port, bool value) noexcept;
  [[nodiscard]] static bool Test(const Bits& bits, uint16_t port) noexcept {
    return (bits[port / 64].load(std::memory_order_relaxed) >> (port % 64) & 1) != 0;
  }

  std::array<Owner, kHvVtlCount> owners_;
  std::atomic<bool> any_{false};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_IO_PORT_INTERCEPTS_H_
