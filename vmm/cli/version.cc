#include "vmm/cli/version.h"

#include "absl/strings/str_cat.h"
#include "vmm/cli/check_report.h"

namespace vmm {
namespace {

#if defined(__clang__)
constexpr absl::string_view kCompiler = "clang " __clang_version__;
#else
constexpr absl::string_view kCompiler = "gcc " __VERSION__;
#endif

}  // namespace

std::string VersionText(absl::string_view kernel_headers) {
  return absl::StrCat("vmm ", kVersion, "\ncompiler: ", kCompiler, "\n",
                      kernel_headers.empty() ? "" : absl::StrCat("kernel headers: ", kernel_headers, "\n"));
}

std::string VersionJson(absl::string_view kernel_headers) {
  return absl::StrCat("{\"version\": ", JsonQuote(kVersion), ", \"compiler\": ", JsonQuote(kCompiler),
                      ", \"kernel_headers\": ", kernel_headers.empty() ? "null" : JsonQuote(kernel_headers), "}\n");
}

}  // namespace vmm
