// Remembers routes and connections, and raises by reading the eventfds. Testonly: wherever an MSI-X table needs somebody behind it.
#ifndef VMM_DEVICES_PCI_FAKE_MSI_ROUTER_H_
#define VMM_DEVICES_PCI_FAKE_MSI_ROUTER_H_

#include <unistd.h>

#include <cstdint>
#include <map>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/pci/msi_router.h"

namespace vmm {

class FakeMsiRouter final : public MsiRouter {
 public:
  absl::StatusOr<uint32_t> Reserve(uint32_t count) override {
    const uint32_t first = next;
    next += count;
    return first;
  }
  absl::Status Route(std::span<const MsiMessage> messages) override {
    ++changes;
    for (const MsiMessage& message : messages) routes.insert_or_assign(message.interrupt, message);
    return refuse ? absl::InternalError("refused") : absl::OkStatus();
  }
  absl::Status Connect(int event_fd, uint32_t interrupt) override {
    connected[event_fd] = interrupt;
    return absl::OkStatus();
  }
  absl::Status Disconnect(int event_fd, uint32_t interrupt) override {
    const auto found = connected.find(event_fd);
    if (found == connected.end() || found->second != interrupt) return absl::NotFoundError("not connected");
    connected.erase(found);
    return absl::OkStatus();
  }

  // The data of the message that a signal of this eventfd would send now, 0: none.
  [[nodiscard]] uint32_t DataOf(int event_fd) const {
    const auto found = connected.find(event_fd);
    if (found == connected.end()) return 0;
    const auto route = routes.find(found->second);
    return route == routes.end() ? 0 : route->second.data;
  }

  uint32_t next = 24;
  int changes = 0;
  bool refuse = false;
  std::map<uint32_t, MsiMessage> routes;
  std::map<int, uint32_t> connected;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PCI_FAKE_MSI_ROUTER_H_
