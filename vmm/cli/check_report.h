// `vmm check`: a HostReport as text for people and as JSON for programs, and the verdict.
//
// Shapes   JSON: one object; keys are stable, new ones may be added.
// Threads  any, pure.
#ifndef VMM_VMM_CLI_CHECK_REPORT_H_
#define VMM_VMM_CLI_CHECK_REPORT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "vmm/cli/host_report.h"

namespace vmm {

struct HostVerdict {
  bool ready = false;
  std::vector<std::string> missing;  // sentences: what keeps machines from running
  std::string protections;           // one sentence: what the best way means
  char best_way = '\0';              // '\0': none
};
[[nodiscard]] HostVerdict JudgeHost(const HostReport& report);

[[nodiscard]] std::string CheckReportText(const HostReport& report);
[[nodiscard]] std::string CheckReportJson(const HostReport& report);

// A JSON string literal, quotes included.
[[nodiscard]] std::string JsonQuote(absl::string_view text);

}  // namespace vmm

#endif  // VMM_VMM_CLI_CHECK_REPORT_H_
