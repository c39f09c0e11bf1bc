#include "vmm/run/host_probe.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/owned_fd.h"
#include "kvm/capabilities.h"
#include "sandbox/probe.h"

namespace vmm {
namespace {

// At most 64 KiB: all that is asked for here is in the first few.
std::string ReadText(const std::string& path) {
  const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(65536, '\0');
  size_t filled = 0;
  while (fd.valid() && filled < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + filled, text.size() - filled);
    if (got <= 0) break;
    filled += static_cast<size_t>(got);
  }
  text.resize(filled);
  return text;
}

// "key   : value" of the first line that begins with `key`, as /proc/cpuinfo and /proc/meminfo have them.
std::string Field(absl::string_view text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key)) continue;
    line = absl::StripLeadingAsciiWhitespace(line);
    if (!absl::ConsumePrefix(&line, ":")) continue;
    return std::string(absl::StripAsciiWhitespace(line));
  }
  return "";
}

uint64_t Number(absl::string_view text) {
  uint64_t value = 0;
  return absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &value) ? value : 0;
}

uint64_t MeminfoBytes(absl::string_view meminfo, absl::string_view key) {
  std::string value = Field(meminfo, key);
  return Number(absl::StripSuffix(value, " kB")) * 1024;
}

void ProbeProcessors(HostReport& report) {
  const std::string cpuinfo = ReadText("/proc/cpuinfo");
  report.cpu_vendor = Field(cpuinfo, "vendor_id");
  report.cpu_model = Field(cpuinfo, "model name");
  report.processors = static_cast<uint32_t>(::sysconf(_SC_NPROCESSORS_ONLN));
  report.nested = absl::StrContains(Field(cpuinfo, "flags"), " hypervisor");
}

void ProbeMemory(HostReport& report) {
  const std::string meminfo = ReadText("/proc/meminfo");
  report.memory_bytes = MeminfoBytes(meminfo, "MemTotal");
  report.memory_available_bytes = MeminfoBytes(meminfo, "MemAvailable");
  for (const uint64_t page_kib : {uint64_t{2048}, uint64_t{1048576}}) {
    const std::string folder = absl::StrCat("/sys/kernel/mm/hugepages/hugepages-", page_kib, "kB/");
    if (::access(folder.c_str(), F_OK) != 0) continue;
    report.huge_pages.push_back({page_kib * 1024, Number(ReadText(folder + "nr_hugepages")),
                                 Number(ReadText(folder + "free_hugepages"))});
  }
  // "always [madvise] never": the one in brackets holds.
  const std::string transparent = ReadText("/sys/kernel/mm/transparent_hugepage/enabled");
  const std::pair<absl::string_view, absl::string_view> after = absl::StrSplit(transparent, absl::MaxSplits('[', 1));
  const std::pair<absl::string_view, absl::string_view> inside = absl::StrSplit(after.second, absl::MaxSplits(']', 1));
  report.transparent_huge_pages = std::string(inside.first);
}

void ProbeKvm(HostReport& report) {
  report.kvm.present = ::access("/dev/kvm", F_OK) == 0;
  const auto found = kvm::ProbeCapabilities();
  if (!found.ok()) {
    report.kvm.problem = std::string(found.status().message());
    for (const char way : {'A', 'B', 'C'}) report.protections.push_back({way, "nothing", false, "needs a usable /dev/kvm"});
    return;
  }
  report.kvm.accessible = true;
  report.kvm.api_version = found->api_version;
  for (const kvm::Capability& capability : found->capabilities) {
    report.kvm.capabilities.push_back({capability.name, capability.value, capability.needed_for, capability.required});
  }
  const auto add = [&](char way, absl::string_view gives, const kvm::ProtectionWay& from, absl::string_view choice) {
    report.protections.push_back({way, std::string(gives), from.available, from.reason, std::string(choice)});
  };
  add('A', "all of read, write and execute, per page", found->attributes_rwx, "");
  add('B', "no access, or read and execute, per page; execution is never denied; faults with an address", found->attributes_private,
      "PRIVATE_ATTRIBUTE");
  add('C', "no access, or read and execute, per page; execution is never denied; faults without an address", found->host_mapping,
      "HOST_MAPPING");
}

std::string LandlockDetail(int abi) {
  if (abi <= 0) return "not in this kernel, or off: the filters alone keep the monitor from files";
  return absl::StrCat("ABI ", abi, ": no file can be opened, by devices and by the monitor once it runs", abi >= 4 ? "; no TCP" : "",
                      abi >= 6 ? "; no abstract socket outside" : "");
}

void ProbeSandboxLayers(HostReport& report) {
  const SandboxProbe found = ProbeSandbox();
  report.sandbox.push_back({"namespaces", found.namespaces,
                            found.namespaces ? absl::StrCat("devices: user, mount, pid, net, ipc, uts", found.cgroup_namespace ? ", cgroup" : "")
                                             : found.namespaces_reason,
                            true});
  report.sandbox.push_back({"seccomp", found.seccomp_filter && found.seccomp_kill_process && found.seccomp_trap,
                            "filters for devices, virtual processors and the event loop; a violation is reported and kills", true});
  report.sandbox.push_back({"pidfd", found.pidfd, "a device process is named without a race", true});
  report.sandbox.push_back({"close_range", found.close_range, "no descriptor is inherited by accident", true});
  report.sandbox.push_back({"landlock", found.landlock_abi > 0, LandlockDetail(found.landlock_abi), false});
}

}  // namespace

HostReport ProbeHost() {
  HostReport report;
  utsname name{};
  if (::uname(&name) == 0) report.kernel_release = name.release;
  ProbeProcessors(report);
  ProbeMemory(report);
  ProbeKvm(report);
  ProbeSandboxLayers(report);
  return report;
}

}  // namespace vmm
