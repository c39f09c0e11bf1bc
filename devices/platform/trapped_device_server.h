// The device's side of the trapped protocol: serves an IoDevice model from an event loop.
//
// Shapes   one wake-up handles every message that is queued, then calls `after_batch` once.
// Threads  confined to the loop's thread; so is the model, which needs no lock.
// Trust    a message that the protocol does not know ends the loop: the monitor is right or it is not our monitor.
// Errors   Create: Status. End of file, and nonsense, stop the loop.
#ifndef VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_SERVER_H_
#define VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_SERVER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/event_loop.h"
#include "devices/io_device.h"
#include "devices/platform/trapped_protocol.h"

namespace vmm {

// What the device publishes. Words carry the number of the access that is being handled, so Publish may be called in the
// middle of one, and must be called before the interrupt that makes the guest look.
class RegisterPublisher final {
 public:
  // `page` is shared with the monitor and outlives this; null publishes nothing.
  explicit RegisterPublisher(PublishedPage* page) : page_(page) {}

  void Publish(size_t offset, uint8_t value, uint16_t credit) noexcept;
  void Withdraw(size_t offset) noexcept;

  // For the server: from now on `sequence` is taken account of, and the words that stay valid say so.
  void BeginAccess(uint32_t sequence) noexcept { sequence_ = sequence; }
  void EndAccess() noexcept;

 private:
  void Store(size_t offset) noexcept;

  PublishedPage* const page_;
  std::array<PublishedWord, kPublishedRegisters> words_{};
  uint32_t sequence_ = 0;
};

// On the event socket; nobody waits for it.
void SendTrappedEvent(TrappedKind kind, absl::string_view text = "");

class TrappedDeviceServer final {
 public:
  // All are borrowed and outlive the server; `socket` stays open for as long.
  static absl::StatusOr<std::unique_ptr<TrappedDeviceServer>> Create(EventLoop& loop, int socket, IoDevice& model,
                                                                     RegisterPublisher& publisher,
                                                                     std::function<void()> after_batch);
  TrappedDeviceServer(const TrappedDeviceServer&) = delete;
  TrappedDeviceServer& operator=(const TrappedDeviceServer&) = delete;
  ~TrappedDeviceServer();

 private:
  TrappedDeviceServer(EventLoop& loop, int socket, IoDevice& model, RegisterPublisher& publisher,
                      std::function<void()> after_batch)
      : loop_(loop), socket_(socket), model_(model), publisher_(publisher), after_batch_(std::move(after_batch)) {}
  void OnReadable();
  // False: the loop must end.
  [[nodiscard]] bool Handle(const TrappedMessage& message);

  EventLoop& loop_;
  const int socket_;
  IoDevice& model_;
  RegisterPublisher& publisher_;
  const std::function<void()> after_batch_;
  uint32_t sequence_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_SERVER_H_
