#include "devices/platform/rtc/rtc_process.h"

#include <unistd.h>

#include <array>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/event_loop.h"
#include "base/status_macros.h"
#include "devices/platform/rtc/cmos_rtc.h"
#include "devices/platform/rtc/rtc_policy.h"
#include "devices/platform/trapped_device_server.h"
#include "devices/platform/trapped_protocol.h"
#include "sandbox/enter.h"
#include "sandbox/jail_options.h"

namespace vmm {
namespace {

absl::Status Serve(int argc, char** argv) {
  JailOptions jail;
  for (int i = 3; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (!ParseJailOptionArgument(argument, jail)) {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument '", argument, "'"));
    }
  }
  CmosRtc rtc;
  RegisterPublisher nothing(nullptr);
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<TrappedDeviceServer> server;
  const auto prepare = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(loop, EventLoop::Create());
    ASSIGN_OR_RETURN(server, TrappedDeviceServer::Create(*loop, kTrappedAccessFd, rtc, nothing, [] {}));
    return absl::OkStatus();
  };
  constexpr std::array kInherited = {kTrappedAccessFd, kTrappedEventFd};
  const DeviceSandboxPolicy policy{"vmm-rtc", kRtcPolicy, kInherited};
  RETURN_IF_ERROR(EnterDeviceSandbox(policy, jail, prepare));
  SendTrappedEvent(TrappedKind::kReady);
  loop->Run();
  // Not through the destructors: closing descriptors is not among the system calls that are left.
  ::_exit(0);
}

}  // namespace

int RunRtcDevice(int argc, char** argv) {
  const absl::Status status = Serve(argc, argv);
  if (status.ok()) return 0;
  SendTrappedEvent(TrappedKind::kFailed, status.message());
  return 1;
}

}  // namespace vmm
