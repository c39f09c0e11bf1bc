#include "devices/hyperv/vsm/io_port_intercepts.h"

namespace vmm {

void IoPortIntercepts::Assign(Bits& bits, uint16_t port, bool value) noexcept {
  const uint64_t bit = uint64_t{1} << (port % 64);
  std::atomic<uint64_t>& word = bits[port / 64];
  if (value) {
    word.fetch_or(bit, std::memory_order_relaxed);
  } else {
    word.fetch_and(~bit, std::memory_order_relaxed);
  }
}

void IoPortIntercepts::Install(Vtl owner, uint16_t port, bool reads, bool writes) noexcept {
  Assign(owners_[owner.raw()].reads, port, reads);
  Assign(owners_[owner.raw()].writes, port, writes);
  if (reads || writes) any_.store(true, std::memory_order_relaxed);
}

std::optional<Vtl> IoPortIntercepts::Find(Vtl by, uint16_t port, uint8_t bytes, bool write) const noexcept {
  if (!any()) return std::nullopt;
  for (uint8_t owner = by.raw() + 1; owner < kHvVtlCount; ++owner) {
    const Bits& bits = write ? owners_[owner].writes : owners_[owner].reads;
    // The space of ports does not wrap.
    for (uint32_t at = port; at < uint32_t{port} + bytes && at < kPorts; ++at) {
      if (Test(bits, static_cast<uint16_t>(at))) return Vtl(owner);
    }
  }
  return std::nullopt;
}

}  // namespace vmm
