// What the child does between clone and exec. Async-signal-safe only: see spawn_child.cc.
//
// Shapes   everything that needs memory is built by the parent beforehand; the child gets plain pointers into its own
//          copy-on-write copy of it.
// Errors   a failing step is sent to the parent as a SpawnReport; a successful exec closes the socket without a report.
#ifndef VMM_SANDBOX_SPAWN_CHILD_H_
#define VMM_SANDBOX_SPAWN_CHILD_H_

#include <cstddef>
#include <cstdint>

namespace vmm::internal {

enum class SpawnStep : int32_t {
  kWaitForParent,
  kSession,
  kSecureBits,
  kDropGroups,
  kSetIds,
  kPrivateMounts,
  kMountRoot,
  kEnterRoot,
  kPivotRoot,
  kDetachOldRoot,
  kSignals,
  kMoveFds,
  kPlaceFds,
  kCloseFds,
  kLimits,
  kBoundingSet,
  kAmbientSet,
  kDropCapabilities,
  kNoNewPrivileges,
  kParentDeathSignal,
  kParentGone,
  kExec,
};
// "mount the empty root", ...
[[nodiscard]] const char* SpawnStepText(SpawnStep step);

struct SpawnReport {
  SpawnStep step;
  int32_t error;
};

struct SpawnLimit {
  int resource;
  uint64_t value;
};

struct SpawnFd {
  int source;
  int target;
  int parked;  // the child's scratch
};

// The byte that lets the child go on, once its id maps are written.
inline constexpr char kGoKeepGroups = 'k';  // setgroups is denied: an ordinary user's namespace
inline constexpr char kGoDropGroups = 'd';

struct SpawnPlan {
  int status_fd;
  int executable_fd;
  char* const* arguments;
  char* const* environment;
  SpawnFd* fds;  // sorted by target, no target twice
  size_t fd_count;
  const SpawnLimit* limits;
  size_t limit_count;
  bool new_session;
  bool new_user_namespace;
  bool empty_root;
  bool lock_secure_bits;  // we hold CAP_SETPCAP, in the new user namespace or outside
  bool keep_capabilities;  // the spawner's process: it makes namespaces
  bool set_ids;
  uint32_t id;  // user and group, as the new namespace counts
};

[[noreturn]] void RunSpawnedChild(const SpawnPlan& plan) noexcept;

}  // namespace vmm::internal

#endif  // VMM_SANDBOX_SPAWN_CHILD_H_
