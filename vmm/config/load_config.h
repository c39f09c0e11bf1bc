// Configuration files and flags to a validated VmConfig.
//
// Shapes   text format; JSON where the file's name ends in .json. "-" is standard input (JSON where it starts with '{').
//          "" is an empty file: everything comes from flags.
// Units    a file has at most kMaxConfigBytes.
// Threads  any; reads files, changes nothing but protobuf's log handler (off: its messages go into the Status).
// Trust    the file is not trusted.
// Errors   INVALID_ARGUMENT with all problems, one a line:
//            FILE:LINE: field.path: what is wrong (value)
//            --memory.size_mib=9: memory.size_mib: must be 16 to 1048576 (9)
//          A syntax error hides what else is wrong with the file.
#ifndef VMM_VMM_CONFIG_LOAD_CONFIG_H_
#define VMM_VMM_CONFIG_LOAD_CONFIG_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "vmm/config/config.pb.h"
#include "vmm/config/message_builder.h"
#include "vmm/config/validate.h"
#include "vmm/config/vm_config.h"

namespace vmm {

inline constexpr size_t kMaxConfigBytes = 1024 * 1024;

struct LoadedConfig {
  VmConfig config;
  config::VmConfig effective;  // overrides applied, paths resolved, defaults filled in
};

absl::StatusOr<VmConfig> LoadConfig(const std::string& path, absl::Span<const ConfigOverride> overrides);
absl::StatusOr<LoadedConfig> LoadConfigWithMessage(const std::string& path, absl::Span<const ConfigOverride> overrides);

// The same without the file: `name` is for messages.
absl::StatusOr<LoadedConfig> ParseConfig(absl::string_view text, Dialect dialect, const std::string& name,
                                         const std::string& base_dir, absl::Span<const ConfigOverride> overrides,
                                         const HostLimits& host = ThisHost());

[[nodiscard]] std::string ConfigToText(const config::VmConfig& message);

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_LOAD_CONFIG_H_
