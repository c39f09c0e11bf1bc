#include "sandbox/landlock.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "base/errno_status.h"
#include "base/owned_fd.h"

namespace vmm {
namespace {

// Debian 12's headers know ABI 2 only.
constexpr long kSysCreateRuleset = 444;
constexpr long kSysRestrictSelf = 446;
constexpr uint32_t kCreateRulesetVersion = 1;
struct RulesetAttributes {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;
  uint64_t scoped;
};
static_assert(sizeof(RulesetAttributes) == 24);

}  // namespace

int LandlockAbi() {
  const long abi = ::syscall(kSysCreateRuleset, nullptr, 0, kCreateRulesetVersion);
  return abi < 0 ? 0 : static_cast<int>(abi);
}

absl::Status LandlockDenyAll(LandlockSignals signals) {
  const int abi = LandlockAbi();
  if (abi == 0) return absl::OkStatus();
  // Everything that this ABI handles, and not one rule that allows some of it.
  RulesetAttributes attributes{};
  attributes.handled_access_fs = (uint64_t{1} << 13) - 1;                   // ABI 1
  if (abi >= 2) attributes.handled_access_fs |= uint64_t{1} << 13;          // REFER
  if (abi >= 3) attributes.handled_access_fs |= uint64_t{1} << 14;          // TRUNCATE
  if (abi >= 4) attributes.handled_access_net = 3;                          // BIND_TCP, CONNECT_TCP
  if (abi >= 5) attributes.handled_access_fs |= uint64_t{1} << 15;          // IOCTL_DEV
  if (abi >= 6) attributes.scoped = signals == LandlockSignals::kDeny ? 3 : 1;  // abstract sockets, signals
  const size_t bytes = abi >= 6 ? sizeof(attributes) : abi >= 4 ? offsetof(RulesetAttributes, scoped) : sizeof(uint64_t);
  const long created = ::syscall(kSysCreateRuleset, &attributes, bytes, 0);
  if (created < 0) return ErrnoStatus(errno, "create Landlock ruleset");
  const OwnedFd ruleset(static_cast<int>(created));
  if (::syscall(kSysRestrictSelf, ruleset.get(), 0) != 0) return ErrnoStatus(errno, "restrict process by Landlock");
  return absl::OkStatus();
}

}  // namespace vmm
