// A serial process that a guest has taken over: says that it is ready, then that the person at the terminal wants to quit.
#include <sys/socket.h>
#include <unistd.h>

#include "devices/platform/serial_process.h"
#include "devices/platform/trapped_protocol.h"

int main() {
  for (const vmm::TrappedKind kind : {vmm::TrappedKind::kReady, vmm::TrappedKind::kQuit}) {
    vmm::TrappedMessage message{};
    message.version = vmm::kTrappedVersion;
    message.kind = kind;
    if (::send(vmm::kTrappedEventFd, &message, sizeof(message), MSG_NOSIGNAL) != sizeof(message)) return 1;
  }
  while (true) ::pause();
}
