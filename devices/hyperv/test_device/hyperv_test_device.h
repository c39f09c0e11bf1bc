// The Hyper-V test device of TEST machines: a guest makes and destroys its own connections, and raises SINTs.
//
// A message posted to a connection of its comes back as a message of the same type and payload at (VP, SINT); an event sets the flag
// whose number is the connection's. "Routes" of SINTs exist always here: making one succeeds and does nothing.
//
// Shapes   one port of 4 bytes; reads are 0. A write is connection << 24 | command << 16 | vp << 8 | sint.
// Threads  any.
// Trust    all of it is the guest's: an unknown command, VP or SINT is ignored. At most 256 connections: messages and
//          events share their numbers, as in the specification (on QEMU they do not).
// Errors   none: a device has no way to answer.
// Source   the machine contract of freestanding test kernels (QEMU's hyperv-testdev).
#ifndef VMM_DEVICES_HYPERV_TEST_DEVICE_HYPERV_TEST_DEVICE_H_
#define VMM_DEVICES_HYPERV_TEST_DEVICE_HYPERV_TEST_DEVICE_H_

#include <cstdint>

#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/io_device.h"

namespace vmm {

inline constexpr uint16_t kHypervTestDevicePort = 0x3000;
inline constexpr uint16_t kHypervTestDevicePorts = 4;

// Raises a SINT without a message.
//
// Threads  any.
class SintRaiser {
 public:
  virtual ~SintRaiser() = default;
  // Nothing where there is no such VP.
  virtual void RaiseSint(VpIndex vp, Sint sint) noexcept = 0;
};

class HypervTestDevice final : public IoDevice {
 public:
  // Both outlive the device.
  HypervTestDevice(ConnectionTable& connections, SintRaiser& raiser) : connections_(connections), raiser_(raiser) {}

  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  ConnectionTable& connections_;
  SintRaiser& raiser_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_TEST_DEVICE_HYPERV_TEST_DEVICE_H_
