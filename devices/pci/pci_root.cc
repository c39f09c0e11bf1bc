#include "devices/pci/pci_root.h"

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

// "QEMU PCIe Host bridge": an identity that guests know and bind nothing to.
constexpr PciIdentity kHostBridge{.vendor = 0x1b36,
                                  .device = 0x0008,
                                  .subsystem_vendor = 0x1af4,
                                  .subsystem = 0x1100,
                                  .class_code = 0x060000,
                                  .revision = 0};

}  // namespace

PciRoot::HostBridge::HostBridge() : config_(kHostBridge) {}
void PciRoot::HostBridge::ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept { config_.Read(offset, data); }

PciRoot::PciRoot(Gpa window, uint32_t window_bytes) : window_(window), window_bytes_(window_bytes) {
  slots_[used_slots_++] = &bridge_;
}

absl::StatusOr<uint32_t> PciRoot::Add(PciFunction& function) {
  if (used_slots_ == slots_.size()) return absl::ResourceExhaustedError("add PCI function: all 31 slots are taken");
  const uint64_t bytes = function.bar_bytes();
  if (bytes != 0) {
    const uint64_t start = (used_window_bytes_ + bytes - 1) & ~(bytes - 1);
    if (start + bytes > window_bytes_) {
      return absl::ResourceExhaustedError(absl::StrCat("add PCI function: no room for ", bytes, " bytes in the window"));
    }
    function.PlaceBar(static_cast<uint32_t>(window_.raw() + start));
    used_window_bytes_ = static_cast<uint32_t>(start + bytes);
  }
  slots_[used_slots_] = &function;
  return used_slots_++;
}

PciFunction* PciRoot::At(uint32_t slot, uint32_t function) noexcept {
  return slot < slots_.size() && function == 0 ? slots_[slot] : nullptr;
}

// ECAM: bus in bits 20 and up (there is one), slot in 15 to 19, function in 12 to 14.
void PciRoot::Ecam::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  PciFunction* const function = root_.At(static_cast<uint32_t>(offset >> 15), offset >> 12 & 7);
  if (function != nullptr) function->ReadConfig(offset & 0xfff, data);
}

void PciRoot::Ecam::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  PciFunction* const function = root_.At(static_cast<uint32_t>(offset >> 15), offset >> 12 & 7);
  if (function != nullptr) function->WriteConfig(offset & 0xfff, data);
}

PciFunction* PciRoot::ConfigPorts::Target(uint64_t port, uint32_t& offset) noexcept {
  MutexLock lock(mutex_);
  if ((address_ & pci::kConfigEnable) == 0 || (address_ >> 16 & 0xff) != 0) return nullptr;
  offset = (address_ & 0xfc) + static_cast<uint32_t>(port - 4);
  return root_.At(address_ >> 11 & 0x1f, address_ >> 8 & 7);
}

void PciRoot::ConfigPorts::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  if (offset >= 4) {
    uint32_t at = 0;
    if (PciFunction* const function = Target(offset, at)) function->ReadConfig(at, data);
    return;
  }
  // The address port is four bytes wide and nothing else.
  if (offset != 0 || data.size() != 4) return;
  MutexLock lock(mutex_);
  std::memcpy(data.data(), &address_, 4);
}

void PciRoot::ConfigPorts::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  if (offset >= 4) {
    uint32_t at = 0;
    if (PciFunction* const function = Target(offset, at)) function->WriteConfig(at, data);
    return;
  }
  if (offset != 0 || data.size() != 4) return;
  MutexLock lock(mutex_);
  std::memcpy(&address_, data.data(), 4);
}

PciFunction* PciRoot::Window::Target(uint64_t offset, size_t bytes, uint32_t& in_bar) noexcept {
  const Gpa address = root_.window_ + offset;
  for (uint32_t slot = 0; slot < root_.used_slots_; ++slot) {
    PciFunction& function = *root_.slots_[slot];
    const std::optional<Gpa> bar = function.bar();
    if (!bar.has_value() || address < *bar) continue;
    const uint64_t at = address - *bar;
    if (at >= function.bar_bytes() || bytes > function.bar_bytes() - at) continue;
    in_bar = static_cast<uint32_t>(at);
    return &function;
  }
  return nullptr;
}

void PciRoot::Window::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  uint32_t in_bar = 0;
  if (PciFunction* const function = Target(offset, data.size(), in_bar)) function->ReadBar(in_bar, data);
}

void PciRoot::Window::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  uint32_t in_bar = 0;
  if (PciFunction* const function = Target(offset, data.size(), in_bar)) function->WriteBar(in_bar, data);
}

}  // namespace vmm
