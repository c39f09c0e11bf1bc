// A device process for jail_test: looks around, enters the sandbox, then does what its argument says.
//
// Descriptor 3 takes its report, one fact a line; descriptor 5 is read for the order to go on. An attempt that was not
// stopped ends in exit code 99.
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "sandbox/enter.h"
#include "sandbox/jail_attempts.h"
#include "sandbox/jail_options.h"
#include "sandbox/jail_test_policy.h"
#include "sandbox/spawner.h"

namespace {

constexpr int kReportFd = 3;
constexpr int kOrderFd = 5;

void Report(const std::string& line) { (void)!::write(kReportFd, (line + "\n").data(), line.size() + 1); }

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[2]) == "spawner") return vmm::RunSpawner();
  vmm::JailOptions options;
  for (int i = 2; i < argc; ++i) {
    if (!vmm::ParseJailOptionArgument(argv[i], options)) return 98;
  }
  vmm::LookAroundInJail(Report);
  const std::string attempt = argc > 1 ? argv[1] : "";
  // Asked for only where it must fail: who succeeds has capabilities, and is refused.
  if (attempt == "exit_after_namespace") Report(absl::StrCat("user_namespace=", ::unshare(CLONE_NEWUSER) == 0 ? 0 : errno));
  constexpr int kDescriptors[] = {kReportFd, kOrderFd};
  const vmm::DeviceSandboxPolicy policy{"vmm-jailtest", vmm::kJailTestPolicy, kDescriptors};
  if (const absl::Status status = vmm::EnterDeviceSandbox(policy, options); !status.ok()) {
    Report(absl::StrCat("refused=", std::string(status.message())));
    ::_exit(97);
  }
  Report("entered=1");
  char order = 0;
  if (::read(kOrderFd, &order, 1) != 1) ::_exit(96);
  vmm::AttemptInJail(attempt, kOrderFd);
  ::_exit(99);
}
