// What this host's KVM offers, asked of the VM descriptor where the answer differs from the system's.
//
// Threads  any.
// Errors   Probe: as System::Open. A capability that is missing is a value, not an error.
#ifndef VMM_KVM_CAPABILITIES_H_
#define VMM_KVM_CAPABILITIES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace vmm::kvm {

struct Capability {
  std::string name;
  int64_t value = 0;       // KVM_CHECK_EXTENSION's answer: 0 absent, else present or a number
  std::string needed_for;
  bool required = false;   // without it no VM starts
};

// One of the ways of design.md section 5 to enforce page protections.
struct ProtectionWay {
  bool available = false;
  std::string reason;  // why, or why not
};

struct Capabilities {
  int api_version = 0;
  std::vector<Capability> capabilities;
  ProtectionWay attributes_rwx;      // A
  ProtectionWay attributes_private;  // B
  ProtectionWay host_mapping;        // C
};

absl::StatusOr<Capabilities> ProbeCapabilities(const std::string& kvm_path = "/dev/kvm");

}  // namespace vmm::kvm

#endif  // VMM_KVM_CAPABILITIES_H_
