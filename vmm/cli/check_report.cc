#include "vmm/cli/check_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "vmm/config/problems.h"

namespace vmm {
namespace {

constexpr int kKvmApiVersion = 12;
constexpr uint64_t kMib = 1024 * 1024;

absl::string_view YesNo(bool yes) { return yes ? "yes" : "no"; }
absl::string_view Bool(bool value) { return value ? "true" : "false"; }

std::string PageSize(uint64_t bytes) {
  if (bytes >= 1024 * kMib) return absl::StrCat(bytes / (1024 * kMib), " GiB");
  return absl::StrCat(bytes / kMib, " MiB");
}

}  // namespace

std::string JsonQuote(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte >= 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04x", byte);  // Latin-1: no string here is longer than its bytes
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

HostVerdict JudgeHost(const HostReport& report) {
  HostVerdict verdict;
  if (!report.kvm.present || !report.kvm.accessible) {
    const char* const what = report.kvm.present ? "/dev/kvm cannot be opened" : "/dev/kvm is missing";
    verdict.missing.push_back(report.kvm.problem.empty() ? what : absl::StrCat(what, ": ", report.kvm.problem));
  } else if (report.kvm.api_version != kKvmApiVersion) {
    verdict.missing.push_back(
        absl::StrCat("the KVM API has version ", report.kvm.api_version, " and not ", kKvmApiVersion));
  } else {
    for (const HostReport::Capability& capability : report.kvm.capabilities) {
      if (!capability.required || capability.value > 0) continue;
      verdict.missing.push_back(absl::StrCat(capability.name, " is missing, needed by ", capability.needed_by));
    }
  }
  for (const HostReport::Feature& feature : report.sandbox) {
    if (!feature.required || feature.available) continue;
    verdict.missing.push_back(absl::StrCat("the sandbox lacks ", feature.name,
                                           feature.detail.empty() ? "" : absl::StrCat(": ", feature.detail)));
  }
  verdict.ready = verdict.missing.empty();
  for (const HostReport::ProtectionWay& way : report.protections) {
    if (!way.available || way.choice.empty() || verdict.best_way != '\0') continue;
    verdict.best_way = way.way;
    verdict.protections = absl::StrCat("page protections by way ", absl::string_view(&way.way, 1), ": ", way.gives);
  }
  if (verdict.best_way == '\0') {
    verdict.protections = "no way to protect pages: machines run, but nothing of a higher trust level can be guarded";
  }
  return verdict;
}

std::string CheckReportText(const HostReport& report) {
  const HostVerdict verdict = JudgeHost(report);
  std::string out;
  if (verdict.ready) {
    absl::StrAppend(&out, "READY: this host can run microVMs; ", verdict.protections, ".\n");
  } else {
    out += "NOT READY: this host cannot run microVMs as it is:\n";
    for (const std::string& missing : verdict.missing) absl::StrAppend(&out, "  - ", missing, "\n");
  }

  const uint64_t available_mib = report.memory_available_bytes / kMib;
  absl::StrAppendFormat(&out, "\nHost\n  %-14s %s\n  %-14s %s, %s\n  %-14s %u\n  %-14s %s\n  %-14s %u MiB, %u MiB available\n",
                        "kernel", report.kernel_release, "processor", report.cpu_vendor, report.cpu_model, "processors",
                        report.processors, "nested", report.nested ? "yes: this host is a guest itself, and exits are slow" : "no",
                        "memory", report.memory_bytes / kMib, available_mib);
  for (const HostReport::HugePagePool& pool : report.huge_pages) {
    absl::StrAppendFormat(&out, "  %-14s %u of %u free\n", absl::StrCat("pages of ", PageSize(pool.page_bytes)), pool.free,
                          pool.total);
  }
  absl::StrAppendFormat(&out, "  %-14s %s\n", "transparent",
                        report.transparent_huge_pages.empty() ? "none" : report.transparent_huge_pages);

  absl::StrAppendFormat(&out, "\nKVM\n  %-14s %s\n", "/dev/kvm",
                        report.kvm.accessible ? "present and accessible"
                        : report.kvm.present  ? "present, not accessible"
                                              : "missing");
  if (report.kvm.accessible) absl::StrAppendFormat(&out, "  %-14s %d\n", "API version", report.kvm.api_version);
  for (const HostReport::Capability& capability : report.kvm.capabilities) {
    absl::StrAppendFormat(&out, "  %-36s %6d  %s%s\n", capability.name, capability.value,
                          capability.required ? "required by " : "wanted by ", capability.needed_by);
  }

  out += "\nPage protections (best first)\n";
  for (const HostReport::ProtectionWay& way : report.protections) {
    absl::StrAppendFormat(&out, "  %s  %-3s  %s%s (%s)\n", absl::string_view(&way.way, 1), YesNo(way.available),
                          way.choice.empty() ? "" : absl::StrCat(way.choice, ": "), way.gives, way.reason);
    if (way.available && way.choice.empty()) out += "          No machine uses it yet.\n";
  }
  if (verdict.best_way == '\0') {
    out += "  A machine with hyperv.vsm does not start on this host.\n";
  } else {
    absl::StrAppend(&out, "  hyperv.vsm.protection AUTO is way ", absl::string_view(&verdict.best_way, 1), " on this host. Execution cannot be denied to "
                    "a page that may be read:\n  a guest that asks for it is refused, or gets more than it asked for where "
                    "hyperv.vsm.unenforceable is ROUND.\n");
  }

  out += "\nSandbox\n";
  for (const HostReport::Feature& feature : report.sandbox) {
    absl::StrAppendFormat(&out, "  %-14s %-3s  %s%s\n", feature.name, YesNo(feature.available), feature.detail,
                          feature.required ? "" : " (optional)");
  }

  // What the host's files say must not move the reader's cursor.
  std::string safe;
  for (const char c : out) safe += c == '\n' ? "\n" : Printable(absl::string_view(&c, 1));
  return safe;
}

std::string CheckReportJson(const HostReport& report) {
  const HostVerdict verdict = JudgeHost(report);
  std::string out = absl::StrCat("{\n  \"ready\": ", Bool(verdict.ready), ",\n  \"missing\": [");
  absl::string_view comma = "";
  for (const std::string& missing : verdict.missing) {
    absl::StrAppend(&out, comma, JsonQuote(missing));
    comma = ", ";
  }
  absl::StrAppend(&out, "],\n  \"protection\": ",
                  verdict.best_way == '\0' ? "null" : JsonQuote(absl::string_view(&verdict.best_way, 1)),
                  ",\n  \"kernel\": ", JsonQuote(report.kernel_release),
                  ",\n  \"cpu\": {\"vendor\": ", JsonQuote(report.cpu_vendor), ", \"model\": ", JsonQuote(report.cpu_model),
                  ", \"processors\": ", report.processors, ", \"nested\": ", Bool(report.nested), "}");
  absl::StrAppend(&out, ",\n  \"memory\": {\"bytes\": ", report.memory_bytes, ", \"available_bytes\": ",
                  report.memory_available_bytes, ", \"transparent_huge_pages\": ", JsonQuote(report.transparent_huge_pages),
                  ", \"huge_pages\": [");
  comma = "";
  for (const HostReport::HugePagePool& pool : report.huge_pages) {
    absl::StrAppend(&out, comma, "{\"page_bytes\": ", pool.page_bytes, ", \"total\": ", pool.total, ", \"free\": ", pool.free, "}");
    comma = ", ";
  }
  absl::StrAppend(&out, "]},\n  \"kvm\": {\"present\": ", Bool(report.kvm.present), ", \"accessible\": ",
                  Bool(report.kvm.accessible), ", \"problem\": ", JsonQuote(report.kvm.problem), ", \"api_version\": ",
                  report.kvm.api_version, ", \"capabilities\": [");
  comma = "";
  for (const HostReport::Capability& capability : report.kvm.capabilities) {
    absl::StrAppend(&out, comma, "\n    {\"name\": ", JsonQuote(capability.name), ", \"value\": ", capability.value,
                    ", \"needed_by\": ", JsonQuote(capability.needed_by), ", \"required\": ", Bool(capability.required), "}");
    comma = ",";
  }
  out += "]},\n  \"protections\": [";
  comma = "";
  for (const HostReport::ProtectionWay& way : report.protections) {
    absl::StrAppend(&out, comma, "\n    {\"way\": ", JsonQuote(absl::string_view(&way.way, 1)), ", \"available\": ",
                    Bool(way.available), ", \"choice\": ", way.choice.empty() ? "null" : JsonQuote(way.choice), ", \"gives\": ",
                    JsonQuote(way.gives), ", \"reason\": ", JsonQuote(way.reason), "}");
    comma = ",";
  }
  out += "],\n  \"sandbox\": [";
  comma = "";
  for (const HostReport::Feature& feature : report.sandbox) {
    absl::StrAppend(&out, comma, "\n    {\"name\": ", JsonQuote(feature.name), ", \"available\": ", Bool(feature.available),
                    ", \"required\": ", Bool(feature.required), ", \"detail\": ", JsonQuote(feature.detail), "}");
    comma = ",";
  }
  out += "]\n}\n";
  return out;
}

}  // namespace vmm
