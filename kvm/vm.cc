#include "kvm/vm.h"

#include <array>
#include <cerrno>
#include <cstring>

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

absl::Status Vm::CreateIrqChip(Gpa kvm_identity_map, Gpa kvm_tss) {
  const uint64_t identity_map = kvm_identity_map.raw();
  if (Ioctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0) return KvmStatus(errno, "place KVM's identity map");
  if (Ioctl(fd_.get(), KVM_SET_TSS_ADDR, static_cast<unsigned long>(kvm_tss.raw())) != 0) {
    return KvmStatus(errno, "place KVM's TSS");
  }
  if (Ioctl(fd_.get(), KVM_CREATE_IRQCHIP, 0UL) != 0) return KvmStatus(errno, "create in-kernel interrupt controllers");

  struct {
    kvm_irq_routing header;
    std::array<kvm_irq_routing_entry, kIoApicInputs> entries;
  } routing{};
  static_assert(offsetof(decltype(routing), entries) == sizeof(kvm_irq_routing));
  routing.header.nr = kIoApicInputs;
  for (uint32_t input = 0; input < kIoApicInputs; ++input) {
    kvm_irq_routing_entry& entry = routing.entries[input];
    entry.gsi = input;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = input;
  }
  if (Ioctl(fd_.get(), KVM_SET_GSI_ROUTING, &routing) != 0) return KvmStatus(errno, "route interrupts to the I/O APIC");
  return absl::OkStatus();
}

absl::Status Vm::AddIrqFd(int event_fd, uint32_t gsi) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event_fd);
  irqfd.gsi = gsi;
  if (Ioctl(fd_.get(), KVM_IRQFD, &irqfd) != 0) return KvmStatus(errno, absl::StrCat("connect eventfd to interrupt ", gsi));
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

absl::StatusOr<std::unique_ptr<Vcpu>> Vm::CreateVcpu(uint32_t index) { return Vcpu::Create(fd_.get(), index, run_bytes_); }

}  // namespace vmm::kvm
