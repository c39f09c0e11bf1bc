// A device process that has been taken over: it starts, is jailed and gets its policy as each real one does (JailedDevice), looks around
// before, and then does what its argument --attempt says. What it sees goes to standard error, one fact a line; an attempt that was not
// stopped ends in exit code 99.
#include <unistd.h>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/event_loop.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_process.h"
#include "sandbox/enter.h"
#include "sandbox/jail_attempts.h"
#include "sandbox/jail_options.h"
#include "tests/device_jail/devices.h"

namespace vmm {
namespace {

constexpr int kNotStopped = 99;
constexpr int kAnyFd = 3;

void Say(const std::string& line) { (void)!::write(STDERR_FILENO, (line + "\n").data(), line.size() + 1); }

[[noreturn]] void Misbehave(const std::string& attempt) {
  Say("entered=1");
  AttemptInJail(attempt, kAnyFd);
  ::_exit(kNotStopped);
}

// Once the loop runs, which is behind the filter.
class HostileDevice final : public BackendDevice {
 public:
  HostileDevice(EventLoop& loop, std::string attempt) {
    loop.Post([attempt = std::move(attempt)] { Misbehave(attempt); });
  }
  uint64_t features() const noexcept override { return 0; }
  uint16_t queue_count() const noexcept override { return 1; }
  std::span<const std::byte> config() const noexcept override { return {}; }
  bool WriteConfig(uint32_t, std::span<const std::byte>) noexcept override { return false; }
  void OnHost(BackendHost&) override {}
  bool Process(uint16_t, BackendQueue&) noexcept override { return false; }
  void OnQueueStopped(uint16_t) noexcept override {}
};

int Run(const JailedDevice& device, const std::string& attempt, std::vector<absl::string_view> arguments) {
  std::vector<absl::string_view> jail_arguments;
  (void)SplitJailArguments(arguments, jail_arguments);
  if (device.backend) {
    const BackendKind kind{device.kind, device.process_name, device.policy, static_cast<int>(device.descriptors.size()) - 1,
                           [&](EventLoop& loop) -> absl::StatusOr<std::unique_ptr<BackendDevice>> {
                             return std::make_unique<HostileDevice>(loop, attempt);
                           }};
    return RunBackendProcess(kind, jail_arguments);
  }
  JailOptions jail;
  for (const absl::string_view argument : jail_arguments) (void)ParseJailOptionArgument(argument, jail);
  const DeviceSandboxPolicy policy{device.process_name, device.policy, device.descriptors};
  if (const absl::Status status = EnterDeviceSandbox(policy, jail); !status.ok()) {
    Say(std::string(status.message()));
    return 1;
  }
  Misbehave(attempt);
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  std::vector<absl::string_view> arguments;
  std::string attempt;
  for (int i = 3; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (absl::ConsumePrefix(&argument, "--attempt=")) {
      attempt = std::string(argument);
    } else {
      arguments.push_back(argument);
    }
  }
  vmm::LookAroundInJail(vmm::Say);
  for (const vmm::JailedDevice& device : vmm::JailedDevices()) {
    if (argc > 2 && absl::string_view(argv[2]) == device.kind) return vmm::Run(device, attempt, arguments);
  }
  return 98;
}
