// The virtio-pci transport: a PCI function whose registers drive one virtio device.
//
// Shapes   BAR 0 of 32 KiB: common configuration, ISR, device configuration, notifications (4 bytes a queue), MSI-X table and pending
//          bits. A vector for each queue and one for configuration changes, if the driver wants as many.
// Threads  all of PciFunction: any VP thread, guarded by mutex_, which is held while the endpoint is asked: a register access may take
//          as long as the endpoint's bound. Events: any thread, by an eventfd and atomics. Kicks and interrupts do not pass through here.
// Trust    every access is the guest's. What is not allowed now (a queue changed while enabled, features after FEATURES_OK, a queue of
//          a wrong size or alignment) is refused as the specification says, or else dropped.
// Errors   a device that cannot be started or is lost: DEVICE_NEEDS_RESET and a configuration interrupt. Never waits for the guest.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Virtio Over PCI Bus", "Device Initialization", "Virtqueue Reset".
//
// No INTx: a driver without MSI-X gets no interrupts. No transitional device: VIRTIO_F_VERSION_1 is always offered and required.
#ifndef VMM_DEVICES_VIRTIO_TRANSPORT_VIRTIO_PCI_H_
#define VMM_DEVICES_VIRTIO_TRANSPORT_VIRTIO_PCI_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "base/mutex.h"
#include "devices/pci/config_space.h"
#include "devices/pci/msi_router.h"
#include "devices/pci/msix_table.h"
#include "devices/pci/pci_function.h"
#include "devices/virtio/transport/doorbells.h"
#include "devices/virtio/virtio_endpoint.h"
#include "memory/gpa.h"

namespace vmm {

class VirtioPci final : public PciFunction, public VirtioEvents {
 public:
  struct Stats {
    uint64_t register_accesses = 0;
    uint64_t trapped_notifications = 0;  // that KVM did not take: 0 on the data path
  };

  // All outlive it. RESOURCE_EXHAUSTED where the endpoint has more queues than the BAR has room for.
  static absl::StatusOr<std::unique_ptr<VirtioPci>> Create(VirtioEndpoint& endpoint, MsiRouter& router, Doorbells& doorbells);
  VirtioPci(const VirtioPci&) = delete;
  VirtioPci& operator=(const VirtioPci&) = delete;
  ~VirtioPci() override;

  void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept override;
  void WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override;
  [[nodiscard]] uint32_t bar_bytes() const noexcept override;
  [[nodiscard]] std::optional<Gpa> bar() const noexcept override;
  void PlaceBar(uint32_t address) noexcept override;
  void ReadBar(uint32_t offset, std::span<std::byte> data) noexcept override;
  void WriteBar(uint32_t offset, std::span<const std::byte> data) noexcept override;

  void OnConfigChanged() noexcept override;
  void OnNeedsReset() noexcept override;

  [[nodiscard]] Stats stats() const noexcept;

 private:
  struct Queue {
    uint16_t size = 0;
    bool enabled = false;
    bool doorbell = false;  // KVM has it, at doorbells_at_
    uint64_t descriptors = 0, driver = 0, device = 0;
  };

  VirtioPci(VirtioEndpoint& endpoint, Doorbells& doorbells, EventFd config_event);

  void ReadBarLocked(uint32_t offset, std::span<std::byte> data) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteBarLocked(uint32_t offset, std::span<const std::byte> data) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Notify(uint32_t offset) noexcept;
  uint64_t ReadCommonLocked(uint32_t offset) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteCommonLocked(uint32_t offset, size_t bytes, uint64_t value) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteQueueLocked(uint32_t offset, size_t bytes, uint64_t value) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetStatusLocked(uint8_t status) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ResetLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool StartLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EnableQueueLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ResetQueueLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool QueueIsSane(const Queue& queue) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] VirtioQueueSetup SetupOf(uint16_t index) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool live() const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MoveDoorbellsLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NeedResetLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  VirtioEndpoint& endpoint_;
  Doorbells& doorbells_;
  const uint64_t features_;
  EventFd config_event_;
  uint8_t msix_capability_ = 0;
  uint8_t pci_cfg_capability_ = 0;

  mutable Mutex mutex_;
  PciConfigSpace config_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<MsixTable> msix_ ABSL_GUARDED_BY(mutex_);  // source n is queue n, the last one configuration changes
  std::vector<Queue> queues_ ABSL_GUARDED_BY(mutex_);
  std::optional<Gpa> doorbells_at_ ABSL_GUARDED_BY(mutex_);
  uint8_t status_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t device_feature_select_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t driver_feature_select_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t driver_features_ ABSL_GUARDED_BY(mutex_) = 0;
  uint16_t queue_select_ ABSL_GUARDED_BY(mutex_) = 0;
  // The bus looks for the BAR on every access of the window: no lock for that. 0: nowhere. relaxed: an access that races with a move
  // of the BAR may find either place, as on hardware.
  std::atomic<uint32_t> bar_{0};
  // Set by events, which may come while a VP thread holds mutex_ and waits for the device. relaxed: each is a flag of its own.
  std::atomic<bool> needs_reset_{false};
  std::atomic<uint8_t> isr_{0};
  std::atomic<uint8_t> generation_{0};
  std::atomic<uint64_t> register_accesses_{0};
  std::atomic<uint64_t> trapped_notifications_{0};
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_TRANSPORT_VIRTIO_PCI_H_
