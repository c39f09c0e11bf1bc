// What a host offers, as plain values: filled by whoever probes KVM and the sandbox's kernel features, rendered by
// check_report.h.
//
// Units    bytes where a name says so.
// Threads  a value.
// Trust    strings may come from the host's files; renderers escape them.
#ifndef VMM_VMM_CLI_HOST_REPORT_H_
#define VMM_VMM_CLI_HOST_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace vmm {

struct HostReport {
  std::string kernel_release;  // uname -r
  std::string cpu_vendor;      // "AuthenticAMD"
  std::string cpu_model;
  uint32_t processors = 0;
  bool nested = false;  // this host is a guest itself

  struct Capability {
    std::string name;       // "KVM_CAP_IRQFD"
    int64_t value = 0;      // what the kernel answered; 0 or less: it lacks it
    std::string needed_by;  // "interrupts of devices"
    bool required = false;  // no machine runs without
  };
  struct {
    bool present = false;     // /dev/kvm exists
    bool accessible = false;  // and this user may open it
    std::string problem;      // why not, one sentence
    int api_version = -1;     // 12 is the only one
    std::vector<Capability> capabilities;
  } kvm;

  // A way to enforce page protections (docs/design.md, section 5).
  struct ProtectionWay {
    char way = '?';      // 'A', 'B', 'C', best first
    std::string gives;   // "all of read, write and execute"
    bool available = false;
    std::string reason;  // why available or not
    std::string choice = {};  // its name in hyperv.vsm.protection; "": no machine uses it, whatever the host has
  };
  std::vector<ProtectionWay> protections;

  // A layer of the sandbox: "namespaces", "seccomp", "landlock", ...
  struct Feature {
    std::string name;
    bool available = false;
    std::string detail;
    bool required = false;  // unless `sandbox.waive` names it
  };
  std::vector<Feature> sandbox;

  struct HugePagePool {
    uint64_t page_bytes = 0;
    uint64_t total = 0;
    uint64_t free = 0;
  };
  std::vector<HugePagePool> huge_pages;
  std::string transparent_huge_pages;  // "always", "madvise", "never", or "" where the kernel has none

  uint64_t memory_bytes = 0;
  uint64_t memory_available_bytes = 0;
};

}  // namespace vmm

#endif  // VMM_VMM_CLI_HOST_REPORT_H_
