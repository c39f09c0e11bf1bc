// What a sender is told of its message.
//
// Shapes   one byte.
// Units    none.
// Threads  plain data.
// Trust    none needed: made by the sender's own side.
// Errors   these are they; all but the first two leave the queue as it was.
#ifndef VMM_DEVICES_HYPERV_SYNIC_POST_RESULT_H_
#define VMM_DEVICES_HYPERV_SYNIC_POST_RESULT_H_

#include <cstdint>

namespace vmm {

enum class PostResult : uint8_t {
  kPosted,
  kPostedKick,  // posted, and the caller is the one to kick the consumer
  kFull,        // HV_STATUS_INSUFFICIENT_BUFFERS, or back-pressure to a device
  kMalformed,   // type 0, a payload that is too long, or a type that this sender may not use
};

constexpr bool IsPosted(PostResult result) noexcept { return result <= PostResult::kPostedKick; }

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_POST_RESULT_H_
