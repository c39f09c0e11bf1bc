#include "devices/virtio/transport/virtio_pci.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "devices/pci/pci_layout.h"
#include "devices/virtio/transport/virtio_pci_layout.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {
namespace {

namespace v = virtio;
namespace vp = virtio_pci;

uint32_t ClassOf(v::DeviceId id) {
  switch (id) {
    case v::DeviceId::kNet: return 0x020000;      // Ethernet controller
    case v::DeviceId::kBlock: return 0x018000;    // other mass storage
    case v::DeviceId::kConsole: return 0x078000;  // other communication
    default: return 0xff0000;
  }
}

PciIdentity IdentityOf(v::DeviceId id) {
  const auto number = static_cast<uint16_t>(id);
  return {.vendor = v::kPciVendor,
          .device = static_cast<uint16_t>(v::kPciDeviceBase + number),
          .subsystem_vendor = v::kPciVendor,
          .subsystem = static_cast<uint16_t>(0x40 + number),
          .class_code = ClassOf(id),
          .revision = 1};
}

std::vector<uint8_t> CapabilityBytes(uint8_t type, uint32_t offset, uint32_t length, uint8_t extra = 0) {
  vp::CapabilityBody body{};
  body.cap_len = static_cast<uint8_t>(vp::kCapabilityBytes + extra);
  body.cfg_type = type;
  body.offset = offset;
  body.length = length;
  // The structure has two bytes of its own before `offset` for the alignment that id and link give it in place.
  std::vector<uint8_t> bytes(vp::kCapabilityBytes - 2 + extra);
  bytes[0] = body.cap_len;
  bytes[1] = body.cfg_type;
  std::memcpy(&bytes[vp::kCapabilityOffset - 2], &body.offset, 4);
  std::memcpy(&bytes[vp::kCapabilityLength - 2], &body.length, 4);
  return bytes;
}

uint64_t Load(std::span<const std::byte> data) {
  uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
  return value;
}

// `half` 0 or 4 of a 64-bit register, written whole or in halves.
void StoreHalf(uint64_t& target, uint32_t half, size_t bytes, uint64_t value) {
  if (bytes == 8 && half == 0) {
    target = value;
  } else if (bytes == 4) {
    const unsigned shift = half * 8;
    target = (target & ~(uint64_t{0xffff'ffff} << shift)) | (value & 0xffff'ffff) << shift;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<VirtioPci>> VirtioPci::Create(VirtioEndpoint& endpoint, MsiRouter& router, Doorbells& doorbells) {
  const uint16_t queues = endpoint.queue_count();
  if (queues == 0 || queues >= pci::kMsixMaxVectors || (queues + 1u) * pci::kMsixEntryBytes > vp::kMsixTableBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("make virtio-pci function: ", queues, " queues do not fit"));
  }
  ASSIGN_OR_RETURN(EventFd config_event, EventFd::Create());
  std::unique_ptr<VirtioPci> function(new VirtioPci(endpoint, doorbells, std::move(config_event)));
  std::vector<int> sources;
  for (uint16_t queue = 0; queue < queues; ++queue) sources.push_back(endpoint.call_fd(queue));
  sources.push_back(function->config_event_.fd());
  MutexLock lock(function->mutex_);
  ASSIGN_OR_RETURN(function->msix_, MsixTable::Create(router, queues + 1, sources));
  endpoint.SetEvents(function.get());
  return function;
}

VirtioPci::VirtioPci(VirtioEndpoint& endpoint, Doorbells& doorbells, EventFd config_event)
    : endpoint_(endpoint),
      doorbells_(doorbells),
      features_(endpoint.features() | v::kFeatureVersion1),
      config_event_(std::move(config_event)),
      config_(IdentityOf(endpoint.device_id())),
      queues_(endpoint.queue_count()) {
  config_.SetBar(vp::kBarBytes);
  for (Queue& queue : queues_) queue.size = endpoint.max_queue_size();
  config_.AddCapability(pci::kCapabilityVendor, CapabilityBytes(vp::kCommonCfg, vp::kCommonOffset, vp::kCommonBytes));
  std::vector<uint8_t> notify = CapabilityBytes(vp::kNotifyCfg, vp::kNotifyOffset,
                                                static_cast<uint32_t>(queues_.size()) * vp::kNotifyMultiplier, 4);
  notify[vp::kCapabilityBytes - 2] = vp::kNotifyMultiplier;
  config_.AddCapability(pci::kCapabilityVendor, notify);
  config_.AddCapability(pci::kCapabilityVendor, CapabilityBytes(vp::kIsrCfg, vp::kIsrOffset, vp::kIsrBytes));
  if (endpoint.config_bytes() != 0) {
    const uint32_t bytes = std::min(endpoint.config_bytes(), vp::kDeviceBytes);
    config_.AddCapability(pci::kCapabilityVendor, CapabilityBytes(vp::kDeviceCfg, vp::kDeviceOffset, bytes));
  }
  const std::vector<uint8_t> window = CapabilityBytes(vp::kPciCfg, 0, 0, 4);
  std::vector<uint8_t> writable(window.size());
  writable[vp::kCapabilityBar - 2] = 0xff;
  std::fill(writable.begin() + vp::kCapabilityOffset - 2, writable.begin() + vp::kCapabilityLength - 2 + 4, uint8_t{0xff});
  pci_cfg_capability_ = config_.AddCapability(pci::kCapabilityVendor, window, writable);

  const uint16_t last_vector = static_cast<uint16_t>(queues_.size());
  constexpr uint32_t kTable = vp::kMsixTableOffset, kPending = vp::kMsixPendingOffset;
  const uint8_t msix[10] = {static_cast<uint8_t>(last_vector), static_cast<uint8_t>(last_vector >> 8),
                            kTable & 0xff, kTable >> 8 & 0xff, 0, 0,
                            kPending & 0xff, kPending >> 8 & 0xff, 0, 0};
  const uint8_t msix_writable[10] = {0, (pci::kMsixEnable | pci::kMsixFunctionMask) >> 8};
  msix_capability_ = config_.AddCapability(pci::kCapabilityMsix, msix, msix_writable);
}

VirtioPci::~VirtioPci() {
  endpoint_.SetEvents(nullptr);
  MutexLock lock(mutex_);
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    if (queues_[i].doorbell) {
      (void)doorbells_.Remove(endpoint_.kick_fd(static_cast<uint16_t>(i)),
                              *doorbells_at_ + vp::kNotifyOffset + i * vp::kNotifyMultiplier);
    }
  }
}

void VirtioPci::ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept {
  MutexLock lock(mutex_);
  const uint32_t window = pci_cfg_capability_ + vp::kPciCfgData;
  if (offset == window) {
    // The other way into the BAR: what offset and length say, if it is an access that the BAR would have.
    const uint32_t at = config_.Read32(pci_cfg_capability_ + vp::kCapabilityOffset);
    const uint32_t length = config_.Read32(pci_cfg_capability_ + vp::kCapabilityLength);
    const bool sane = (length == 1 || length == 2 || length == 4) && length <= data.size() && at % length == 0 &&
                      at < vp::kBarBytes && (config_.Read32(pci_cfg_capability_ + vp::kCapabilityBar) & 0xff) == 0;
    if (sane) ReadBarLocked(at, data.first(length));
    return;
  }
  config_.Read(offset, data);
}

void VirtioPci::WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept {
  uint32_t notified = 0;
  {
    MutexLock lock(mutex_);
    const uint32_t window = pci_cfg_capability_ + vp::kPciCfgData;
    if (offset == window) {
      const uint32_t at = config_.Read32(pci_cfg_capability_ + vp::kCapabilityOffset);
      const uint32_t length = config_.Read32(pci_cfg_capability_ + vp::kCapabilityLength);
      const bool sane = (length == 1 || length == 2 || length == 4) && length <= data.size() && at % length == 0 &&
                        at < vp::kBarBytes && (config_.Read32(pci_cfg_capability_ + vp::kCapabilityBar) & 0xff) == 0;
      if (!sane) return;
      if (at >= vp::kNotifyOffset && at < vp::kNotifyOffset + vp::kNotifyBytes) {
        notified = at;
      } else {
        WriteBarLocked(at, data.first(length));
      }
    } else {
      config_.Write(offset, data);
      const std::optional<Gpa> now = config_.bar();
      bar_.store(now.has_value() ? static_cast<uint32_t>(now->raw()) : 0, std::memory_order_relaxed);
      MoveDoorbellsLocked();
      const uint16_t control = config_.Read16(msix_capability_ + pci::kMsixControl);
      msix_->SetControl((control & pci::kMsixEnable) != 0, (control & pci::kMsixFunctionMask) != 0);
    }
  }
  if (notified != 0) Notify(notified);
}

uint32_t VirtioPci::bar_bytes() const noexcept { return vp::kBarBytes; }

std::optional<Gpa> VirtioPci::bar() const noexcept {
  const uint32_t bar = bar_.load(std::memory_order_relaxed);
  return bar == 0 ? std::nullopt : std::optional<Gpa>(Gpa(bar));
}

void VirtioPci::PlaceBar(uint32_t address) noexcept {
  MutexLock lock(mutex_);
  config_.SetBarAddress(address);
}

// KVM takes notifications only where the BAR is now, and only while the device runs: before that a kick means nothing.
void VirtioPci::MoveDoorbellsLocked() noexcept {
  const std::optional<Gpa> wanted = live() ? config_.bar() : std::nullopt;
  if (wanted == doorbells_at_) return;
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    Queue& queue = queues_[i];
    const int kick = endpoint_.kick_fd(static_cast<uint16_t>(i));
    const uint64_t at = vp::kNotifyOffset + i * vp::kNotifyMultiplier;
    if (queue.doorbell) (void)doorbells_.Remove(kick, *doorbells_at_ + at);
    queue.doorbell = wanted.has_value() && doorbells_.Add(kick, *wanted + at).ok();
  }
  doorbells_at_ = wanted;
}

void VirtioPci::ReadBar(uint32_t offset, std::span<std::byte> data) noexcept {
  register_accesses_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  ReadBarLocked(offset, data);
}

void VirtioPci::WriteBar(uint32_t offset, std::span<const std::byte> data) noexcept {
  if (offset >= vp::kNotifyOffset && offset < vp::kNotifyOffset + vp::kNotifyBytes) return Notify(offset);
  register_accesses_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  WriteBarLocked(offset, data);
}

void VirtioPci::Notify(uint32_t offset) noexcept {
  trapped_notifications_.fetch_add(1, std::memory_order_relaxed);
  const uint32_t queue = (offset - vp::kNotifyOffset) / vp::kNotifyMultiplier;
  if (queue < endpoint_.queue_count()) endpoint_.Kick(static_cast<uint16_t>(queue));
}

void VirtioPci::ReadBarLocked(uint32_t offset, std::span<std::byte> data) noexcept {
  if (offset < vp::kCommonOffset + vp::kCommonBytes) {
    // A driver reads each field by its own size; others get what lies there.
    const uint64_t value = ReadCommonLocked(offset);
    std::memcpy(data.data(), &value, std::min(data.size(), sizeof(value)));
  } else if (offset >= vp::kIsrOffset && offset < vp::kIsrOffset + vp::kIsrBytes) {
    std::fill(data.begin(), data.end(), std::byte{0});
    if (offset == vp::kIsrOffset) data[0] = std::byte{isr_.exchange(0, std::memory_order_relaxed)};
  } else if (offset >= vp::kDeviceOffset && offset < vp::kDeviceOffset + vp::kDeviceBytes) {
    endpoint_.ReadConfig(offset - vp::kDeviceOffset, data);
  } else if (offset >= vp::kMsixTableOffset && offset < vp::kMsixTableOffset + vp::kMsixTableBytes) {
    msix_->ReadTable(offset - vp::kMsixTableOffset, data);
  } else if (offset >= vp::kMsixPendingOffset) {
    msix_->ReadPending(offset - vp::kMsixPendingOffset, data);
  }
}

void VirtioPci::WriteBarLocked(uint32_t offset, std::span<const std::byte> data) noexcept {
  if (offset < vp::kCommonOffset + vp::kCommonBytes) {
    WriteCommonLocked(offset, data.size(), Load(data));
  } else if (offset >= vp::kDeviceOffset && offset < vp::kDeviceOffset + vp::kDeviceBytes) {
    if ((status_ & v::kStatusFeaturesOk) != 0) endpoint_.WriteConfig(offset - vp::kDeviceOffset, data);
  } else if (offset >= vp::kMsixTableOffset && offset < vp::kMsixTableOffset + vp::kMsixTableBytes) {
    msix_->WriteTable(offset - vp::kMsixTableOffset, data);
  }
}

uint64_t VirtioPci::ReadCommonLocked(uint32_t offset) noexcept {
  const Queue* const queue = queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
  switch (offset) {
    case vp::kDeviceFeatureSelect: return device_feature_select_;
    case vp::kDeviceFeature:
      return device_feature_select_ < 2 ? features_ >> (32 * device_feature_select_) & 0xffff'ffff : 0;
    case vp::kDriverFeatureSelect: return driver_feature_select_;
    case vp::kDriverFeature:
      return driver_feature_select_ < 2 ? driver_features_ >> (32 * driver_feature_select_) & 0xffff'ffff : 0;
    case vp::kConfigMsixVector: return msix_->vector(queues_.size());
    case vp::kNumQueues: return queues_.size();
    case vp::kDeviceStatus:
      return status_ | (needs_reset_.load(std::memory_order_relaxed) && status_ != 0 ? v::kStatusNeedsReset : 0);
    case vp::kConfigGeneration: return generation_.load(std::memory_order_relaxed);
    case vp::kQueueSelect: return queue_select_;
    default: break;
  }
  // A queue that is not there has size 0.
  if (queue == nullptr) return offset == vp::kQueueMsixVector ? MsixTable::kNoVector : 0;
  switch (offset) {
    case vp::kQueueSize: return queue->size;
    case vp::kQueueMsixVector: return msix_->vector(queue_select_);
    case vp::kQueueEnable: return queue->enabled ? 1 : 0;
    case vp::kQueueNotifyOff: return queue_select_;
    case vp::kQueueDesc: return queue->descriptors;
    case vp::kQueueDesc + 4: return queue->descriptors >> 32;
    case vp::kQueueDriver: return queue->driver;
    case vp::kQueueDriver + 4: return queue->driver >> 32;
    case vp::kQueueDevice: return queue->device;
    case vp::kQueueDevice + 4: return queue->device >> 32;
    case vp::kQueueNotifyData: return queue_select_;
    default: return 0;  // kQueueReset too: a reset is done when the write returns
  }
}

void VirtioPci::WriteCommonLocked(uint32_t offset, size_t bytes, uint64_t value) noexcept {
  switch (offset) {
    case vp::kDeviceFeatureSelect: device_feature_select_ = static_cast<uint32_t>(value); return;
    case vp::kDriverFeatureSelect: driver_feature_select_ = static_cast<uint32_t>(value); return;
    case vp::kDriverFeature:
      if ((status_ & v::kStatusFeaturesOk) == 0 && driver_feature_select_ < 2) {
        StoreHalf(driver_features_, 4 * driver_feature_select_, 4, value);
      }
      return;
    case vp::kConfigMsixVector: msix_->SetVector(queues_.size(), static_cast<uint16_t>(value)); return;
    case vp::kDeviceStatus: SetStatusLocked(static_cast<uint8_t>(value)); return;
    case vp::kQueueSelect: queue_select_ = static_cast<uint16_t>(value); return;
    default: break;
  }
  if (queue_select_ < queues_.size()) WriteQueueLocked(offset, bytes, value);
}

void VirtioPci::WriteQueueLocked(uint32_t offset, size_t bytes, uint64_t value) noexcept {
  Queue& queue = queues_[queue_select_];
  switch (offset) {
    case vp::kQueueMsixVector: msix_->SetVector(queue_select_, static_cast<uint16_t>(value)); return;
    case vp::kQueueEnable:
      if (value == 1) EnableQueueLocked();
      return;
    case vp::kQueueReset:
      if (value == 1) ResetQueueLocked();
      return;
    default: break;
  }
  if (queue.enabled) return;
  switch (offset) {
    case vp::kQueueSize: queue.size = static_cast<uint16_t>(value); return;
    case vp::kQueueDesc: return StoreHalf(queue.descriptors, 0, bytes, value);
    case vp::kQueueDesc + 4: return StoreHalf(queue.descriptors, 4, bytes, value);
    case vp::kQueueDriver: return StoreHalf(queue.driver, 0, bytes, value);
    case vp::kQueueDriver + 4: return StoreHalf(queue.driver, 4, bytes, value);
    case vp::kQueueDevice: return StoreHalf(queue.device, 0, bytes, value);
    case vp::kQueueDevice + 4: return StoreHalf(queue.device, 4, bytes, value);
    default: return;
  }
}

bool VirtioPci::live() const noexcept { return (status_ & v::kStatusDriverOk) != 0; }

void VirtioPci::NeedResetLocked() noexcept { OnNeedsReset(); }

void VirtioPci::SetStatusLocked(uint8_t status) noexcept {
  if (status == 0) return ResetLocked();
  // Bits are only ever added; NEEDS_RESET is not the driver's.
  const uint8_t added = static_cast<uint8_t>(status & ~status_ & ~v::kStatusNeedsReset);
  status_ |= added & (v::kStatusAcknowledge | v::kStatusDriver | v::kStatusFailed);
  if ((added & v::kStatusFeaturesOk) != 0) {
    // What we did not offer, and a driver that knows no version 1, is answered by a bit that stays 0.
    if ((driver_features_ & ~features_) == 0 && (driver_features_ & v::kFeatureVersion1) != 0) status_ |= v::kStatusFeaturesOk;
  }
  if ((added & v::kStatusDriverOk) != 0 && (status_ & v::kStatusFeaturesOk) != 0) {
    status_ |= v::kStatusDriverOk;
    msix_->SetLive(true);
    MoveDoorbellsLocked();
    if (!StartLocked()) NeedResetLocked();
  }
}

bool VirtioPci::QueueIsSane(const Queue& queue) const noexcept {
  const bool packed = (driver_features_ & v::kFeatureRingPacked) != 0;
  if (queue.size == 0 || queue.size > endpoint_.max_queue_size()) return false;
  if (!packed && !std::has_single_bit(queue.size)) return false;
  return queue.descriptors % 16 == 0 && queue.driver % (packed ? 4 : 2) == 0 && queue.device % 4 == 0;
}

VirtioQueueSetup VirtioPci::SetupOf(uint16_t index) const noexcept {
  const Queue& queue = queues_[index];
  return {index, queue.size, Gpa(queue.descriptors), Gpa(queue.driver), Gpa(queue.device)};
}

bool VirtioPci::StartLocked() noexcept {
  std::vector<VirtioQueueSetup> enabled;
  for (uint16_t index = 0; index < queues_.size(); ++index) {
    if (!queues_[index].enabled) continue;
    if (!QueueIsSane(queues_[index])) return false;
    enabled.push_back(SetupOf(index));
  }
  return endpoint_.Start(driver_features_, enabled);
}

void VirtioPci::EnableQueueLocked() noexcept {
  Queue& queue = queues_[queue_select_];
  if (queue.enabled || (status_ & v::kStatusFeaturesOk) == 0) return;
  queue.enabled = true;
  if (!live()) return;
  // After a reset of this queue, as VIRTIO_F_RING_RESET has it.
  if (!QueueIsSane(queue) || !endpoint_.StartQueue(SetupOf(queue_select_))) NeedResetLocked();
}

void VirtioPci::ResetQueueLocked() noexcept {
  Queue& queue = queues_[queue_select_];
  if ((driver_features_ & v::kFeatureRingReset) == 0 || !live() || !queue.enabled) return;
  if (!endpoint_.StopQueue(queue_select_)) NeedResetLocked();
  const bool doorbell = queue.doorbell;
  queue = Queue{};
  queue.doorbell = doorbell;
  queue.size = endpoint_.max_queue_size();
  msix_->SetVector(queue_select_, MsixTable::kNoVector);
}

void VirtioPci::ResetLocked() noexcept {
  const bool was_live = live();
  status_ = 0;
  MoveDoorbellsLocked();
  if (was_live) endpoint_.Stop();
  msix_->ResetSources();
  for (Queue& queue : queues_) {
    queue = Queue{};
    queue.size = endpoint_.max_queue_size();
  }
  driver_features_ = 0;
  device_feature_select_ = driver_feature_select_ = 0;
  queue_select_ = 0;
  needs_reset_.store(false, std::memory_order_relaxed);
  isr_.store(0, std::memory_order_relaxed);
  config_event_.Drain();
}

void VirtioPci::OnConfigChanged() noexcept {
  generation_.fetch_add(1, std::memory_order_relaxed);
  isr_.fetch_or(vp::kIsrConfig, std::memory_order_relaxed);
  config_event_.Signal();
}

void VirtioPci::OnNeedsReset() noexcept {
  needs_reset_.store(true, std::memory_order_relaxed);
  isr_.fetch_or(vp::kIsrConfig, std::memory_order_relaxed);
  config_event_.Signal();
}

VirtioPci::Stats VirtioPci::stats() const noexcept {
  return {register_accesses_.load(std::memory_order_relaxed), trapped_notifications_.load(std::memory_order_relaxed)};
}

}  // namespace vmm
