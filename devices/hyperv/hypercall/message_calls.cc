#include <cstring>

#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm::hypercalls {

// What the message says of itself is checked before it is looked up where it goes, so that a malformed one never leaves here.
HvStatus PostMessage(HypercallCall& call) noexcept {
  const auto input = call.Header<HvPostMessageInput>();
  const auto type = static_cast<HvMessageType>(input.message_type);
  if (input.reserved != 0) return HvStatus::kInvalidParameter;
  if (type == HvMessageType::kNone || IsHypervisorMessage(type)) return HvStatus::kInvalidParameter;
  if (input.payload_size > kHvMessagePayloadBytes) return HvStatus::kInvalidParameter;
  HvMessage message{};
  message.header.type = type;
  message.header.payload_size = static_cast<uint8_t>(input.payload_size);
  // No more than it says: what lies behind is not for the receiver.
  std::memcpy(message.payload, input.payload, input.payload_size);
  return call.services().PostMessage(call.caller().vp, input.connection_id, message);
}

HvStatus SignalEvent(HypercallCall& call) noexcept {
  const auto input = call.Header<HvSignalEventInput>();
  if (input.reserved != 0) return HvStatus::kInvalidParameter;
  return call.services().SignalEvent(input.connection_id, input.flag_number);
}

}  // namespace vmm::hypercalls
