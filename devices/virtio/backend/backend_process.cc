#include "devices/virtio/backend/backend_process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/vhost_user_server.h"
#include "sandbox/enter.h"
#include "sandbox/jail_options.h"

namespace vmm {
namespace {

absl::Status Serve(const BackendKind& kind, const std::vector<absl::string_view>& jail_arguments) {
  JailOptions jail;
  std::optional<uint64_t> file_bytes;
  for (absl::string_view argument : jail_arguments) {
    if (absl::ConsumePrefix(&argument, kBackendFileBytes)) {
      uint64_t bytes = 0;
      if (!absl::SimpleAtoi(argument, &bytes)) return absl::InvalidArgumentError(absl::StrCat("'", kBackendFileBytes, argument, "' is no size"));
      file_bytes = bytes;
      continue;
    }
    if (argument != kBackendJailed && !ParseJailOptionArgument(argument, jail)) {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument '", argument, "'"));
    }
  }
  std::vector<int> inherited = {kBackendSocketFd};
  for (int i = 0; i < kind.inherited; ++i) inherited.push_back(kBackendFirstFd + i);

  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<BackendDevice> device;
  std::unique_ptr<VhostUserServer> server;
  absl::Status result;
  // A guest decides how often: bounded, in this process that has nothing else to say.
  GuestLog::Verdict verdict;
  GuestLog faults("virtio");
  const auto prepare = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(loop, EventLoop::Create());
    ASSIGN_OR_RETURN(device, kind.make(*loop));
    ASSIGN_OR_RETURN(server, VhostUserServer::Create(*loop, OwnedFd(kBackendSocketFd), *device,
                                                     {.on_end =
                                                          [&](const absl::Status& status) {
                                                            result = status;
                                                            loop->Stop();
                                                          },
                                                      .on_fault =
                                                          [&](uint16_t queue, BackendQueue::Fault fault) {
                                                            verdict = faults.Admit(VhostUserChannel::NowMs());
                                                            if (!verdict.write) return;
                                                            SayFromBackend(absl::StrCat("queue ", queue, " is stopped: ", QueueFaultText(fault)));
                                                          }}));
    if (!file_bytes.has_value()) return absl::OkStatus();
    const rlimit limit{*file_bytes, *file_bytes};
    return ::setrlimit(RLIMIT_FSIZE, &limit) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "limit the size of files");
  };
  const DeviceSandboxPolicy policy{kind.process_name, kind.policy, inherited};
  RETURN_IF_ERROR(EnterDeviceSandbox(policy, jail, prepare));
  loop->Run();
  if (!result.ok()) SayFromBackend(result.message());
  // Not through the destructors: they would make calls that are not left.
  ::_exit(result.ok() ? 0 : 1);
}

}  // namespace

std::string PrintableFromBackend(absl::string_view text) {
  std::string printable(text.substr(0, kMaxSaidBytes));
  for (char& character : printable) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(character))) character = '?';
  }
  return printable;
}

void SayFromBackend(absl::string_view message) {
  const std::string line = absl::StrCat(PrintableFromBackend(message), "\n");
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

bool SplitJailArguments(std::vector<absl::string_view>& arguments, std::vector<absl::string_view>& jail_arguments) {
  bool jailed = false;
  std::vector<absl::string_view> others;
  JailOptions ignored;
  for (const absl::string_view argument : arguments) {
    if (argument == kBackendJailed) {
      jailed = true;
    } else if (absl::StartsWith(argument, kBackendFileBytes)) {
      jail_arguments.push_back(argument);
    } else if (ParseJailOptionArgument(argument, ignored)) {
      jail_arguments.push_back(argument);
    } else {
      others.push_back(argument);
    }
  }
  arguments = std::move(others);
  return jailed;
}

int RunBackendProcess(const BackendKind& kind, const std::vector<absl::string_view>& jail_arguments) {
  const absl::Status status = Serve(kind, jail_arguments);
  SayFromBackend(status.message());
  return 1;
}

}  // namespace vmm
