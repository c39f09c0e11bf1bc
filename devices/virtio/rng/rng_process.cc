// The entropy device's process, inside and outside of its jail.
#include <sys/random.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/event_loop.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/standalone_backend.h"
#include "devices/virtio/rng/rng_device.h"
#include "devices/virtio/rng/rng_policy.h"

namespace vmm {
namespace {

bool FromHost(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out = out.subspan(static_cast<size_t>(got));
  }
  return true;
}

absl::Status Outside(std::vector<absl::string_view> arguments) {
  ASSIGN_OR_RETURN(const BackendListen listen, TakeListenArguments(arguments));
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unknown argument '", arguments[0], "'"));
  BackendSpawnOptions options;
  options.kind = "rng";
  return RunStandaloneBackend(listen, options);
}

}  // namespace

int RunRngDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  if (!SplitJailArguments(arguments, jail_arguments)) {
    const absl::Status status = Outside(arguments);
    if (status.ok()) return 0;
    SayFromBackend(absl::StrCat("vmm device rng: ", status.message()));
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  jail_arguments.insert(jail_arguments.end(), arguments.begin(), arguments.end());
  const BackendKind kind{"rng", "vmm-rng", kRngPolicy, 0,
                         [](EventLoop&) -> absl::StatusOr<std::unique_ptr<BackendDevice>> { return std::make_unique<RngDevice>(&FromHost); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
