#include "devices/hyperv/hypercall/handlers.h"

namespace vmm::hypercalls {

HvStatus GetPartitionId(HypercallCall& call) noexcept {
  call.PutOutput(call.services().partition_id());
  return HvStatus::kSuccess;
}

// A bit for each extended call from 0x8002 on: none is there.
HvStatus ExtQueryCapabilities(HypercallCall& call) noexcept {
  call.PutOutput(uint64_t{0});
  return HvStatus::kSuccess;
}

}  // namespace vmm::hypercalls
