#include "kvm/irq_routing.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "kvm/ioctl.h"

namespace vmm::kvm {
namespace {

// Ours, never KVM's: a number that is reserved and leads nowhere yet.
constexpr uint32_t kUnroutedMsi = ~uint32_t{0};

}  // namespace

absl::Status IrqRouting::RouteIoApic() {
  MutexLock lock(mutex_);
  if (!entries_.empty()) return absl::FailedPreconditionError("route interrupts to the I/O APIC: there are routes already");
  for (uint32_t input = 0; input < kIoApicInputs; ++input) {
    kvm_irq_routing_entry entry{};
    entry.gsi = input;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry.u.irqchip.pin = input;
    entries_.push_back(entry);
  }
  if (const int error = StoreLocked(); error != 0) {
    entries_.clear();
    return KvmStatus(error, "route interrupts to the I/O APIC");
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> IrqRouting::AddHvSint(uint32_t vcpu, uint32_t sint) {
  MutexLock lock(mutex_);
  for (const kvm_irq_routing_entry& entry : entries_) {
    if (entry.type == KVM_IRQ_ROUTING_HV_SINT && entry.u.hv_sint.vcpu == vcpu && entry.u.hv_sint.sint == sint) return entry.gsi;
  }
  return AppendLocked(vcpu, sint, 1);
}

absl::StatusOr<uint32_t> IrqRouting::AddHvSints(uint32_t vcpu) {
  MutexLock lock(mutex_);
  for (const kvm_irq_routing_entry& entry : entries_) {
    if (entry.type == KVM_IRQ_ROUTING_HV_SINT && entry.u.hv_sint.vcpu == vcpu) {
      return absl::AlreadyExistsError(absl::StrCat("route all SINTs of vCPU ", vcpu, ": it has routes"));
    }
  }
  return AppendLocked(vcpu, 0, kHvSints);
}

absl::StatusOr<uint32_t> IrqRouting::AppendLocked(uint32_t vcpu, uint32_t first_sint, uint32_t count) {
  const size_t before = entries_.size();
  if (count > kMaxRoutes - before) {
    return absl::ResourceExhaustedError(absl::StrCat("route ", count, " SINT(s) of vCPU ", vcpu, ": ", before, " of ", kMaxRoutes,
                                                     " routes are in use"));
  }
  // Routes are never taken away, so the next free number follows the last; without an I/O APIC's routes its numbers stay free.
  const uint32_t first_gsi = entries_.empty() ? kIoApicInputs : entries_.back().gsi + 1;
  for (uint32_t i = 0; i < count; ++i) {
    kvm_irq_routing_entry entry{};
    entry.gsi = first_gsi + i;
    entry.type = KVM_IRQ_ROUTING_HV_SINT;
    entry.u.hv_sint.vcpu = vcpu;
    entry.u.hv_sint.sint = first_sint + i;
    entries_.push_back(entry);
  }
  if (const int error = StoreLocked(); error != 0) {
    entries_.resize(before);
    return KvmStatus(error, absl::StrCat("route ", count, " SINT(s) of vCPU ", vcpu));
  }
  return first_gsi;
}

absl::StatusOr<uint32_t> IrqRouting::ReserveMsis(uint32_t count) {
  MutexLock lock(mutex_);
  const size_t before = entries_.size();
  if (count > kMaxRoutes - before) {
    return absl::ResourceExhaustedError(absl::StrCat("reserve ", count, " MSIs: ", before, " of ", kMaxRoutes, " routes are in use"));
  }
  const uint32_t first_gsi = entries_.empty() ? kIoApicInputs : entries_.back().gsi + 1;
  for (uint32_t i = 0; i < count; ++i) {
    kvm_irq_routing_entry entry{};
    entry.gsi = first_gsi + i;
    entry.type = kUnroutedMsi;
    entries_.push_back(entry);
  }
  return first_gsi;
}

absl::Status IrqRouting::SetMsis(std::span<const MsiRoute> routes) {
  MutexLock lock(mutex_);
  bool changed = false;
  for (const MsiRoute& route : routes) {
    const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.gsi == route.gsi; });
    if (entry == entries_.end() || (entry->type != kUnroutedMsi && entry->type != KVM_IRQ_ROUTING_MSI)) {
      return absl::InvalidArgumentError(absl::StrCat("route an MSI by number ", route.gsi, ": it is not reserved for one"));
    }
    kvm_irq_routing_entry wanted{};
    wanted.gsi = route.gsi;
    wanted.type = KVM_IRQ_ROUTING_MSI;
    wanted.u.msi.address_lo = static_cast<uint32_t>(route.address);
    wanted.u.msi.address_hi = static_cast<uint32_t>(route.address >> 32);
    wanted.u.msi.data = route.data;
    if (std::memcmp(&*entry, &wanted, sizeof(wanted)) == 0) continue;
    *entry = wanted;
    changed = true;
  }
  if (!changed) return absl::OkStatus();
  // A message that KVM refuses (an address that names no APIC) would keep every later change from being made: it leads nowhere then.
  if (const int error = StoreLocked(); error != 0) {
    for (const MsiRoute& route : routes) {
      for (kvm_irq_routing_entry& entry : entries_) {
        if (entry.gsi == route.gsi) entry.type = kUnroutedMsi;
      }
    }
    return KvmStatus(error, absl::StrCat("route ", routes.size(), " MSI(s)"));
  }
  return absl::OkStatus();
}

int IrqRouting::StoreLocked() {
  // kvm_irq_routing is two words, then the entries.
  static_assert(sizeof(kvm_irq_routing) == 8 && sizeof(kvm_irq_routing_entry) % 8 == 0);
  std::vector<kvm_irq_routing_entry> routed;
  routed.reserve(entries_.size());
  std::copy_if(entries_.begin(), entries_.end(), std::back_inserter(routed), [](const auto& e) { return e.type != kUnroutedMsi; });
  std::vector<uint64_t> words(1 + routed.size() * sizeof(kvm_irq_routing_entry) / 8);
  auto* const routing = reinterpret_cast<kvm_irq_routing*>(words.data());
  routing->nr = static_cast<uint32_t>(routed.size());
  routing->flags = 0;
  if (!routed.empty()) std::memcpy(words.data() + 1, routed.data(), routed.size() * sizeof(kvm_irq_routing_entry));
  return Ioctl(vm_fd_, KVM_SET_GSI_ROUTING, routing) == 0 ? 0 : errno;
}

}  // namespace vmm::kvm
