// HV_STATUS: what a hypercall answers in bits 15:0 of its result value.
//
// Source   Hyper-V TLFS, "Hypercall Status Codes". INSUFFICIENT_BUFFERS is 0x13: an appendix of version 6.0b says 0x33, which is
//          the singular INSUFFICIENT_BUFFER.
#ifndef VMM_DEVICES_HYPERV_HV_STATUS_H_
#define VMM_DEVICES_HYPERV_HV_STATUS_H_

#include <cstdint>

namespace vmm {

enum class HvStatus : uint16_t {
  kSuccess = 0x00,
  kInvalidHypercallCode = 0x02,
  kInvalidHypercallInput = 0x03,
  kInvalidAlignment = 0x04,
  kInvalidParameter = 0x05,
  kAccessDenied = 0x06,
  kInvalidPartitionState = 0x07,
  kOperationDenied = 0x08,
  kUnknownProperty = 0x09,
  kInsufficientMemory = 0x0b,
  kInvalidPartitionId = 0x0d,
  kInvalidVpIndex = 0x0e,
  kNotFound = 0x10,
  kInvalidPortId = 0x11,
  kInvalidConnectionId = 0x12,
  kInsufficientBuffers = 0x13,
  kNotAcknowledged = 0x14,
  kInvalidVpState = 0x15,
  kInvalidSynicState = 0x18,
  kObjectInUse = 0x19,
  kNoResources = 0x1d,
  kFeatureUnavailable = 0x1e,
  kInsufficientBuffer = 0x33,
  kInvalidRegisterValue = 0x50,
  kInvalidVtlState = 0x51,
  kOperationFailed = 0x71,
  kTimeout = 0x78,
  kCallPending = 0x79,
  kVtlAlreadyEnabled = 0x86,
  kUnknownRegisterName = 0x87,
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HV_STATUS_H_
