// The device processes whose jails are tested here: policy, and the descriptors that each starts with. A new device is a row, and a row of
// device_policy_test's table.
#ifndef VMM_TESTS_DEVICE_JAIL_DEVICES_H_
#define VMM_TESTS_DEVICE_JAIL_DEVICES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "devices/platform/rtc/rtc_policy.h"
#include "devices/platform/serial_policy.h"
#include "devices/virtio/balloon/balloon_policy.h"
#include "devices/virtio/block/block_policy.h"
#include "devices/virtio/console/console_policy.h"
#include "devices/virtio/net/net_policy.h"
#include "devices/virtio/rng/rng_policy.h"
#include "devices/virtio/vsock/vsock_policy.h"
#include "sandbox/seccomp_policy.h"

namespace vmm {

struct JailedDevice {
  const char* kind;  // of `vmm device KIND`
  const char* process_name;
  const SeccompPolicy& policy;
  bool backend;                  // started and run by devices/virtio/backend; else by itself
  std::vector<int> descriptors;  // beside the standard ones
};

inline std::vector<JailedDevice> JailedDevices() {
  return {
      {"serial", "vmm-serial", kSerialPolicy, false, {3, 4, 5, 6, 7, 8}},
      {"rtc", "vmm-rtc", kRtcPolicy, false, {3, 8}},
      {"block", "vmm-block", kBlockPolicy, true, {3, 4}},
      {"console", "vmm-console", kConsolePolicy, true, {3, 4, 5}},
      {"rng", "vmm-rng", kRngPolicy, true, {3}},
      {"net", "vmm-net", kNetPolicy, true, {3, 4}},
      {"balloon", "vmm-balloon", kBalloonPolicy, true, {3, 4}},
      {"vsock", "vmm-vsock", kVsockPolicy, true, {3, 4, 5, 6}},
  };
}

}  // namespace vmm

#endif  // VMM_TESTS_DEVICE_JAIL_DEVICES_H_
