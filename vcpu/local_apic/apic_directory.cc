#include "vcpu/local_apic/apic_directory.h"

#include <cstddef>

#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

bool IsFor(const ApicMessage& message, const LocalApic& apic) {
  return !(message.but_sender && apic.id() == message.sender) && apic.Matches(message.destination);
}

}  // namespace

absl::Status ApicDirectory::Add(LocalApic& apic) {
  if (apic.id() != apics_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("add local APIC: id ", apic.id(), ", expected ", apics_.size()));
  }
  apics_.push_back(&apic);
  return absl::OkStatus();
}

void ApicDirectory::Send(const ApicMessage& message) noexcept {
  if (message.mode == ApicDeliveryMode::kLowestPriority) return SendToLowest(message);
  const ApicDestination& destination = message.destination;
  // The common case without a look at every APIC. Only one of more than 255 shares the low byte of its id with another.
  if (!destination.is_logical && !destination.is_broadcast && apics_.size() <= 255) {
    if (destination.number < apics_.size() && IsFor(message, *apics_[destination.number])) {
      apics_[destination.number]->Post(message.mode, message.vector);
    }
    return;
  }
  for (LocalApic* const apic : apics_) {
    if (IsFor(message, *apic)) apic->Post(message.mode, message.vector);
  }
}

void ApicDirectory::SendToLowest(const ApicMessage& message) noexcept {
  LocalApic* lowest = nullptr;
  uint8_t lowest_class = 0;
  const size_t first = turn_.fetch_add(1, std::memory_order_relaxed);
  for (size_t n = 0; n < apics_.size(); ++n) {
    LocalApic* const apic = apics_[(first + n) % apics_.size()];
    if (!IsFor(message, *apic) || !apic->receives_fixed()) continue;
    const uint8_t priority_class = apic->priority_class();
    if (lowest != nullptr && priority_class >= lowest_class) continue;
    lowest = apic;
    lowest_class = priority_class;
  }
  if (lowest != nullptr) lowest->Post(message.mode, message.vector);
}

void ApicDirectory::BroadcastEoi(uint8_t vector) noexcept {
  if (io_apic_ != nullptr) io_apic_->OnEoiBroadcast(vector);
}

}  // namespace vmm
