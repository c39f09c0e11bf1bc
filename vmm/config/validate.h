// From the configuration message to plain values: what the schema's types cannot say.
//
// Units    sizes as their fields say.
// Threads  any. Looks at the file system (kernel, initramfs, folders) and opens files for reading only.
// Trust    the message is not trusted: unknown fields and enum numbers are refused as well.
// Errors   INVALID_ARGUMENT; the message has one line a problem: "[where: ]field.path: what is wrong (value)".
#ifndef VMM_VMM_CONFIG_VALIDATE_H_
#define VMM_VMM_CONFIG_VALIDATE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "vmm/config/config.pb.h"
#include "vmm/config/message_builder.h"
#include "vmm/config/problems.h"
#include "vmm/config/vm_config.h"

namespace vmm {

// What of the host a configuration is held against.
struct HostLimits {
  uint64_t memory_bytes = 0;
};
[[nodiscard]] HostLimits ThisHost();

inline constexpr uint64_t kMinMemoryMib = 16;
inline constexpr uint64_t kMaxMemoryMib = 1048576;
inline constexpr uint32_t kMaxProcessors = 64;
inline constexpr size_t kMaxCommandLineBytes = 2047;
inline constexpr size_t kMaxNameBytes = 64;

// The library's way in. Relative paths in `message` start at `base_dir`; "" is the working directory.
absl::StatusOr<VmConfig> ValidateConfig(const config::VmConfig& message, const std::string& base_dir,
                                        const HostLimits& host = ThisHost());

// What LoadConfig uses: `message` becomes the effective configuration (paths resolved, defaults filled in). Without
// problems the result is complete.
VmConfig ValidateMessage(config::VmConfig& message, const std::string& base_dir, const FieldOrigins& origins,
                         const HostLimits& host, Problems& problems);

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_VALIDATE_H_
