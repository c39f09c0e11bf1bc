// The virtio console device: one port, whose bytes go to and come from a stream of the host.
//
// Shapes   queue 0 is what the guest receives, queue 1 what it transmits.
// Threads  confined to its process's loop.
// Trust    the guest's bytes go out as they are: what reads them must expect anything. A guest that never gives room for input leaves it
//          in the host's stream; one that writes faster than the host takes waits, and holds up nobody else.
// Errors   values: a stream whose other end is gone takes everything, or gives nothing.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Console Device".
#ifndef VMM_DEVICES_VIRTIO_CONSOLE_CONSOLE_DEVICE_H_
#define VMM_DEVICES_VIRTIO_CONSOLE_CONSOLE_DEVICE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"

namespace vmm {

// The host's side.
class ConsoleStream {
 public:
  virtual ~ConsoleStream() = default;
  // How much was taken, at least one byte; 0: not now; -1: the other end is gone.
  virtual ssize_t Write(std::span<const std::byte> data) noexcept = 0;
  // How much was given; 0: nothing now; -1: nothing will ever come again.
  virtual ssize_t Read(std::span<std::byte> out) noexcept = 0;
  // Whether to call OnOutput, OnInput when Write, Read would do something again.
  virtual void WantOutput(bool wanted) noexcept = 0;
  virtual void WantInput(bool wanted) noexcept = 0;
};

class ConsoleDevice final : public BackendDevice {
 public:
  static constexpr uint16_t kReceive = 0;
  static constexpr uint16_t kTransmit = 1;
  static constexpr uint64_t kFeatureSize = 1;
  static constexpr uint64_t kFeatureEmergencyWrite = 4;
  static constexpr int kQuantum = 64;
  struct Config {
    uint16_t columns, rows;
    uint32_t ports;
    uint32_t emergency_write;
  };
  static_assert(sizeof(Config) == 12);

  // `stream` outlives it. `sized`: it is a terminal, whose size the guest may know.
  ConsoleDevice(ConsoleStream& stream, bool sized) : stream_(stream), sized_(sized) { config_.ports = 1; }

  [[nodiscard]] uint64_t features() const noexcept override { return kFeatureEmergencyWrite | (sized_ ? kFeatureSize : 0); }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return 2; }
  [[nodiscard]] std::span<const std::byte> config() const noexcept override { return std::as_bytes(std::span(&config_, 1)); }
  [[nodiscard]] bool WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override;
  void OnHost(BackendHost& host) override { host_ = &host; }
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;
  void OnQueueStopped(uint16_t index) noexcept override;

  void OnInput() { host_->Wake(kReceive); }
  void OnOutput() { host_->Wake(kTransmit); }
  void SetSize(uint16_t columns, uint16_t rows);

 private:
  bool Receive(BackendQueue& queue) noexcept;
  bool Transmit(BackendQueue& queue) noexcept;
  // All of chain_ from sent_ on; false: not now.
  bool SendRest() noexcept;

  ConsoleStream& stream_;
  const bool sized_;
  BackendHost* host_ = nullptr;
  Config config_{};
  QueueChain received_;
  QueueChain sending_;
  bool is_sending_ = false;
  uint64_t sent_ = 0;
};

// `vmm device console --jailed [--no-input]`: descriptors output, input; argv as main has it.
int RunConsoleDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_CONSOLE_CONSOLE_DEVICE_H_
