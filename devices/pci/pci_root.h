// The root bus: a host bridge in slot 0 and up to 31 functions, no bridges. Reached by ECAM, by the legacy configuration ports, and
// by the 32-bit window that BARs lie in.
//
// Shapes   three IoDevices for the buses: ecam() of kEcamBytes, config_ports() of 8 ports, window() of `window_bytes`.
// Threads  Add: before any VP runs. The devices: any VP thread; the address port has a mutex, functions lock for themselves.
// Trust    addresses, offsets and data are the guest's, and where it puts the BARs too: one outside of the window is not reached, of
//          two that overlap the lower slot answers.
// Errors   Add: RESOURCE_EXHAUSTED past 31 functions or where the window has no room.
// Source   PCI Express Base Specification, "PCI Express Enhanced Configuration Access Mechanism"; PCI Local Bus Specification 3.0,
//          "Software Generation of Configuration Transactions".
//
// BARs are placed by Add, bottom up: a guest that assigns none finds them assigned.
#ifndef VMM_DEVICES_PCI_PCI_ROOT_H_
#define VMM_DEVICES_PCI_PCI_ROOT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "devices/io_device.h"
#include "devices/pci/config_space.h"
#include "devices/pci/pci_function.h"
#include "devices/pci/pci_layout.h"
#include "memory/gpa.h"

namespace vmm {

class PciRoot final {
 public:
  PciRoot(Gpa window, uint32_t window_bytes);
  PciRoot(const PciRoot&) = delete;
  PciRoot& operator=(const PciRoot&) = delete;

  // The slot it got. `function` outlives the bus.
  absl::StatusOr<uint32_t> Add(PciFunction& function);

  [[nodiscard]] IoDevice& ecam() noexcept { return ecam_; }
  [[nodiscard]] IoDevice& config_ports() noexcept { return ports_; }
  [[nodiscard]] IoDevice& window() noexcept { return window_device_; }

 private:
  class Ecam final : public IoDevice {
   public:
    explicit Ecam(PciRoot& root) : root_(root) {}
    void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
    void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

   private:
    PciRoot& root_;
  };
  class ConfigPorts final : public IoDevice {
   public:
    explicit ConfigPorts(PciRoot& root) : root_(root) {}
    void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
    void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

   private:
    // The function and the register that a data access means; nullptr: none.
    PciFunction* Target(uint64_t port, uint32_t& offset) noexcept;
    PciRoot& root_;
    Mutex mutex_;
    uint32_t address_ ABSL_GUARDED_BY(mutex_) = 0;
  };
  class Window final : public IoDevice {
   public:
    explicit Window(PciRoot& root) : root_(root) {}
    void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
    void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

   private:
    PciFunction* Target(uint64_t offset, size_t bytes, uint32_t& in_bar) noexcept;
    PciRoot& root_;
  };
  class HostBridge final : public PciFunction {
   public:
    HostBridge();
    void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept override;
    void WriteConfig(uint32_t, std::span<const std::byte>) noexcept override {}
    [[nodiscard]] uint32_t bar_bytes() const noexcept override { return 0; }
    [[nodiscard]] std::optional<Gpa> bar() const noexcept override { return std::nullopt; }
    void PlaceBar(uint32_t) noexcept override {}
    void ReadBar(uint32_t, std::span<std::byte>) noexcept override {}
    void WriteBar(uint32_t, std::span<const std::byte>) noexcept override {}

   private:
    const PciConfigSpace config_;
  };

  [[nodiscard]] PciFunction* At(uint32_t slot, uint32_t function) noexcept;

  const Gpa window_;
  const uint32_t window_bytes_;
  // Immutable once VPs run.
  std::array<PciFunction*, pci::kSlots> slots_{};
  uint32_t used_slots_ = 0;
  uint32_t used_window_bytes_ = 0;
  HostBridge bridge_;
  Ecam ecam_{*this};
  ConfigPorts ports_{*this};
  Window window_device_{*this};
};

}  // namespace vmm

#endif  // VMM_DEVICES_PCI_PCI_ROOT_H_
