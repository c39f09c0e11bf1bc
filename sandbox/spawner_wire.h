// The messages between monitor and spawner, one SOCK_SEQPACKET datagram each, with descriptors beside them.
//
// Shapes   kRegister: a request as text (Encode); its executable beside it, if it has one of its own. kSpawn: the number of a request;
//          its descriptors beside it, in the request's order. kRegisterPath: a path as bytes; kConnect: its number. kSeal. The
//          answer: code, pid and text; pidfd and words beside it, or the connection.
// Threads  pure.
// Trust    Decode checks everything: what it takes is a request that SpawnDevice would take or refuse.
// Errors   nullopt: not an encoded request.
#ifndef VMM_SANDBOX_SPAWNER_WIRE_H_
#define VMM_SANDBOX_SPAWNER_WIRE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/owned_fd.h"
#include "sandbox/spawn.h"

namespace vmm::internal {

inline constexpr size_t kSpawnerMessageBytes = 16 * 1024;
inline constexpr size_t kSpawnerFds = 64;

enum class SpawnerKind : uint32_t { kRegister = 1, kSpawn = 2, kSeal = 3, kRegisterPath = 4, kConnect = 5 };
struct SpawnerHeader {
  SpawnerKind kind;
  uint32_t index;
};
struct SpawnerAnswer {
  int32_t code;  // absl::StatusCode
  int32_t pid;
  char text[1000];
};

// Without the executable and the parent's descriptors, which travel beside it.
[[nodiscard]] std::string EncodeRequest(const SpawnRequest& request);
[[nodiscard]] std::optional<SpawnRequest> DecodeRequest(absl::string_view text);

struct ReceivedMessage {
  std::string bytes;
  std::vector<OwnedFd> fds;
};
[[nodiscard]] bool SendMessage(int socket, absl::string_view bytes, const std::vector<int>& fds) noexcept;
// Blocks. nullopt: the other end is gone, or the message was cut.
[[nodiscard]] std::optional<ReceivedMessage> ReceiveMessage(int socket);

}  // namespace vmm::internal

#endif  // VMM_SANDBOX_SPAWNER_WIRE_H_
