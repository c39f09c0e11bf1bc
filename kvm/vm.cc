#include "kvm/vm.h"

#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kvm/ioctl.h"

namespace vmm::kvm {

int Vm::CheckExtension(uint32_t capability) const noexcept {
  const int answer = Ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability));
  return answer < 0 ? 0 : answer;
}

absl::Status Vm::EnableCap(uint32_t capability, uint64_t argument) {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  if (Ioctl(fd_.get(), KVM_ENABLE_CAP, &cap) != 0) {
    return KvmStatus(errno, absl::StrCat("enable KVM capability ", capability));
  }
  return absl::OkStatus();
}

absl::Status Vm::SetMemorySlot(uint32_t slot, Gpa start, std::byte* host, uint64_t bytes) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.guest_phys_addr = start.raw();
  region.memory_size = bytes;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  if (Ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
    return KvmStatus(errno, absl::StrCat("give KVM ", bytes, " bytes of guest RAM at 0x", absl::Hex(start.raw())));
  }
  return absl::OkStatus();
}

bool Vm::HasPrivateAttribute() const noexcept {
  return (CheckExtension(KVM_CAP_MEMORY_ATTRIBUTES) & KVM_MEMORY_ATTRIBUTE_PRIVATE) != 0;
}

bool Vm::SetPrivate(Gpa start, uint64_t bytes, bool is_private) noexcept {
  kvm_memory_attributes attributes{};
  attributes.address = start.raw();
  attributes.size = bytes;
  attributes.attributes = is_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
  return Ioctl(fd_.get(), KVM_SET_MEMORY_ATTRIBUTES, &attributes) == 0;
}

absl::Status Vm::CreateIrqChip(Gpa kvm_identity_map, Gpa kvm_tss) {
  const uint64_t identity_map = kvm_identity_map.raw();
  if (Ioctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0) return KvmStatus(errno, "place KVM's identity map");
  if (Ioctl(fd_.get(), KVM_SET_TSS_ADDR, static_cast<unsigned long>(kvm_tss.raw())) != 0) {
    return KvmStatus(errno, "place KVM's TSS");
  }
  if (Ioctl(fd_.get(), KVM_CREATE_IRQCHIP, 0UL) != 0) return KvmStatus(errno, "create in-kernel interrupt controllers");
  return routing_.RouteIoApic();
}

absl::Status Vm::AddIrqFd(int event_fd, uint32_t gsi, std::optional<int> resample_fd) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event_fd);
  irqfd.gsi = gsi;
  if (resample_fd.has_value()) {
    irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
    irqfd.resamplefd = static_cast<uint32_t>(*resample_fd);
  }
  if (Ioctl(fd_.get(), KVM_IRQFD, &irqfd) != 0) return KvmStatus(errno, absl::StrCat("connect eventfd to interrupt ", gsi));
  return absl::OkStatus();
}

absl::Status Vm::RemoveIrqFd(int event_fd, uint32_t gsi) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event_fd);
  irqfd.gsi = gsi;
  irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
  if (Ioctl(fd_.get(), KVM_IRQFD, &irqfd) != 0) return KvmStatus(errno, absl::StrCat("disconnect eventfd from interrupt ", gsi));
  return absl::OkStatus();
}

absl::Status Vm::SetIrqLine(uint32_t gsi, bool level) {
  kvm_irq_level line{};
  line.irq = gsi;
  line.level = level ? 1 : 0;
  if (Ioctl(fd_.get(), KVM_IRQ_LINE, &line) != 0) return KvmStatus(errno, absl::StrCat("set level of interrupt ", gsi));
  return absl::OkStatus();
}

bool Vm::SignalMsi(uint32_t apic_id, uint8_t vector) noexcept {
  constexpr uint32_t kAllProcessors = 0xff;
  if (apic_id >= kAllProcessors) return false;
  return SignalMsi(
      {.destination = static_cast<uint8_t>(apic_id), .logical = false, .level = false, .delivery_mode = 0, .vector = vector});
}

bool Vm::SignalMsi(const Msi& from) noexcept {
  constexpr uint32_t kMsiBase = 0xfee0'0000, kLogical = 1 << 2, kDestinationShift = 12;
  constexpr uint32_t kModeShift = 8, kAssert = 1 << 14, kLevel = 1 << 15;
  kvm_msi msi{};
  msi.address_lo = kMsiBase | uint32_t{from.destination} << kDestinationShift | (from.logical ? kLogical : 0);
  msi.data = from.vector | uint32_t{from.delivery_mode} << kModeShift | (from.level ? kLevel | kAssert : 0);
  return Ioctl(fd_.get(), KVM_SIGNAL_MSI, &msi) > 0;
}

absl::Status Vm::SetMsrFilter(std::span<const MsrRange> trapped, bool refused_exit) {
  if (trapped.size() > KVM_MSR_FILTER_MAX_RANGES) {
    return absl::InvalidArgumentError(absl::StrCat("filter MSRs: ", trapped.size(), " ranges, KVM takes ", KVM_MSR_FILTER_MAX_RANGES));
  }
  // FILTER alone: what the filter does not name is KVM's to answer, with #GP where it does not know it. The capability comes
  // first: a filter without it turns accesses into #GP.
  constexpr uint64_t kRefused = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN;
  RETURN_IF_ERROR(EnableCap(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER | (refused_exit ? kRefused : 0)));
  if (!ReplaceMsrFilter(trapped)) return KvmStatus(errno, absl::StrCat("filter ", trapped.size(), " ranges of MSRs"));
  return absl::OkStatus();
}

bool Vm::ReplaceMsrFilter(std::span<const MsrRange> trapped) noexcept {
  // A bit that is 0 traps. KVM looks at no bit beyond `nmsrs`, so zeros alone, as many as the longest range needs, do for all.
  static constexpr std::array<uint8_t, 4096 / 8> kZeros{};
  errno = EINVAL;
  if (trapped.size() > KVM_MSR_FILTER_MAX_RANGES) return false;
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  for (size_t i = 0; i < trapped.size(); ++i) {
    if (trapped[i].count > kZeros.size() * 8) return false;
    kvm_msr_filter_range& range = filter.ranges[i];
    range.flags = (trapped[i].read ? KVM_MSR_FILTER_READ : 0u) | (trapped[i].write ? KVM_MSR_FILTER_WRITE : 0u);
    range.base = trapped[i].base;
    range.nmsrs = trapped[i].count;
    range.bitmap = const_cast<uint8_t*>(kZeros.data());  // KVM reads it
  }
  return Ioctl(fd_.get(), KVM_X86_SET_MSR_FILTER, &filter) == 0;
}

absl::StatusOr<kvm_clock_data> Vm::GetClock() const {
  kvm_clock_data clock{};
  if (Ioctl(fd_.get(), KVM_GET_CLOCK, &clock) != 0) return KvmStatus(errno, "get KVM's clock");
  return clock;
}

absl::Status Vm::SetClock(uint64_t nanoseconds) {
  kvm_clock_data clock{};
  clock.clock = nanoseconds;
  if (Ioctl(fd_.get(), KVM_SET_CLOCK, &clock) != 0) return KvmStatus(errno, "set KVM's clock");
  return absl::OkStatus();
}

absl::Status Vm::AddPioEventFd(int event_fd, uint16_t port, uint32_t bytes) {
  kvm_ioeventfd ioeventfd{};
  ioeventfd.addr = port;
  ioeventfd.len = bytes;
  ioeventfd.fd = event_fd;
  ioeventfd.flags = KVM_IOEVENTFD_FLAG_PIO;
  if (Ioctl(fd_.get(), KVM_IOEVENTFD, &ioeventfd) != 0) {
    return KvmStatus(errno, absl::StrCat("connect eventfd to port 0x", absl::Hex(port)));
  }
  return absl::OkStatus();
}

absl::Status Vm::AddMmioEventFd(int event_fd, Gpa address) {
  kvm_ioeventfd ioeventfd{};
  ioeventfd.addr = address.raw();
  ioeventfd.fd = event_fd;
  if (Ioctl(fd_.get(), KVM_IOEVENTFD, &ioeventfd) != 0) {
    return KvmStatus(errno, absl::StrCat("connect eventfd to address 0x", absl::Hex(address.raw())));
  }
  return absl::OkStatus();
}

absl::Status Vm::RemoveMmioEventFd(int event_fd, Gpa address) {
  kvm_ioeventfd ioeventfd{};
  ioeventfd.addr = address.raw();
  ioeventfd.fd = event_fd;
  ioeventfd.flags = KVM_IOEVENTFD_FLAG_DEASSIGN;
  if (Ioctl(fd_.get(), KVM_IOEVENTFD, &ioeventfd) != 0) {
    return KvmStatus(errno, absl::StrCat("disconnect eventfd from address 0x", absl::Hex(address.raw())));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Vcpu>> Vm::CreateVcpu(uint32_t index) { return Vcpu::Create(fd_.get(), index, run_bytes_); }

}  // namespace vmm::kvm
