// The MSI-X table and pending bits of one function: which eventfd raises which message, as the guest's masks allow.
//
// Shapes   up to 2048 vectors. A source is an eventfd with the vector that the driver gave it; several may share a vector.
// Threads  confined, or under the owner's lock. Signals come from any thread or process, and do not pass through here.
// Trust    everything in the table, and every vector number, is the guest's.
// Errors   Create: the router's. Afterwards an interrupt that cannot be routed is not raised; faults() counts them.
// Source   PCI Local Bus Specification 3.0, "MSI-X Capability and Table Structure", "MSI-X operation" (masking).
//
// A source is connected to its interrupt only while nothing masks it; meanwhile a signal stays in the eventfd, which is the pending
// bit, and connecting it raises it then. Changes of messages are collected until SetLive(true): routing costs about 10 ms a change,
// and a driver writes all its messages before the device may raise any.
#ifndef VMM_DEVICES_PCI_MSIX_TABLE_H_
#define VMM_DEVICES_PCI_MSIX_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "devices/pci/msi_router.h"

namespace vmm {

class MsixTable final {
 public:
  static constexpr uint16_t kNoVector = 0xffff;

  // `router` outlives the table; sources are borrowed descriptors.
  static absl::StatusOr<std::unique_ptr<MsixTable>> Create(MsiRouter& router, uint16_t vectors, std::span<const int> sources);
  MsixTable(const MsixTable&) = delete;
  MsixTable& operator=(const MsixTable&) = delete;
  ~MsixTable();

  [[nodiscard]] uint16_t vectors() const noexcept { return static_cast<uint16_t>(entries_.size()); }
  [[nodiscard]] uint32_t table_bytes() const noexcept;
  [[nodiscard]] uint32_t pending_bytes() const noexcept;

  void ReadTable(uint32_t offset, std::span<std::byte> data) const noexcept;
  void WriteTable(uint32_t offset, std::span<const std::byte> data) noexcept;
  void ReadPending(uint32_t offset, std::span<std::byte> data) const noexcept;

  // The capability's message control.
  void SetControl(bool enabled, bool function_masked) noexcept;
  // False: there is no such vector, and the source has none now.
  bool SetVector(size_t source, uint16_t vector) noexcept;
  [[nodiscard]] uint16_t vector(size_t source) const noexcept { return sources_[source].vector; }
  // Whether the device may raise interrupts.
  void SetLive(bool live) noexcept;
  // All sources without a vector, not live. The table and the control stay: they are PCI's, not the device's.
  void ResetSources() noexcept;

  [[nodiscard]] uint64_t faults() const noexcept { return faults_; }

 private:
  struct Entry {
    uint64_t address = 0;
    uint32_t data = 0;
    uint32_t control = 1;
    bool routed = false;  // the router has this address and data
  };
  struct Source {
    int event_fd;
    uint16_t vector = kNoVector;
    bool connected = false;
  };
  MsixTable(MsiRouter& router, uint32_t first_interrupt, uint16_t vectors, std::span<const int> sources);
  [[nodiscard]] bool Wanted(const Source& source) const noexcept;
  [[nodiscard]] uint32_t ReadWord(uint32_t offset) const noexcept;
  void Disconnect(Source& source) noexcept;
  void Apply() noexcept;

  MsiRouter& router_;
  const uint32_t first_interrupt_;
  std::vector<Entry> entries_;
  std::vector<Source> sources_;
  bool enabled_ = false;
  bool function_masked_ = false;
  bool live_ = false;
  uint64_t faults_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PCI_MSIX_TABLE_H_
