// The virtio socket device: streams between ports of the guest and Unix sockets of the host.
//
// Shapes   queue 0 to the guest, 1 from it, 2 events. A process of the host connects to the machine's socket and says "CONNECT port\n";
//          once the guest has accepted it reads "OK port\n". What the guest asks of port P of the host (CID 2) is a connection to P by
//          whoever made this device (VsockHost::Connect).
// Units    bytes; milliseconds.
// Threads  confined to its process's loop.
// Trust    guest and host processes are both hostile. Per connection: 64 KiB that the host does not take; kMaxConnections of them, the
//          ones that say nothing or get no answer for kAnswerMs included. Replies to packets of no connection: kMaxReplies, then the
//          guest's next packet waits until it takes some. A process of the host reaches ports of the guest, nothing else; the guest reaches
//          what VsockHost::Connect lets it.
// Errors   values: what breaks the rules of a connection is answered by RST; a packet that is none is dropped.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Socket Device"; Firecracker's "Using the Firecracker Virtio-vsock Device".
//
// A device that is started again has lost its connections: it says so by a transport reset.
#ifndef VMM_DEVICES_VIRTIO_VSOCK_VSOCK_DEVICE_H_
#define VMM_DEVICES_VIRTIO_VSOCK_VSOCK_DEVICE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/vsock/vsock_connection.h"
#include "devices/virtio/vsock/vsock_layout.h"

namespace vmm {

// What its process does for it.
class VsockHost {
 public:
  virtual ~VsockHost() = default;
  static constexpr uint32_t kUnwatched = ~uint32_t{0};
  // Calls OnSocket for these epoll events and EPOLLHUP, in place of those of before; kUnwatched: for nothing.
  virtual void Watch(int fd, uint32_t events) noexcept = 0;
  // Answered by OnConnected, later. False: not now.
  [[nodiscard]] virtual bool Connect(uint64_t id, uint32_t port) noexcept = 0;
  // Whether there is room for one more connection of a process of the host.
  virtual void WantAccept(bool wanted) noexcept = 0;
  // Whether to call OnTick, about once a second.
  virtual void WantTicks(bool wanted) noexcept = 0;
  [[nodiscard]] virtual uint64_t NowMs() noexcept = 0;
};

class VsockDevice : public BackendDevice {
 public:
  static constexpr size_t kMaxConnections = 256;
  static constexpr size_t kMaxReplies = 256;
  static constexpr int kQuantum = 64;
  static constexpr size_t kMaxGreetingBytes = 32;
  static constexpr uint64_t kAnswerMs = 10'000;  // greeting, connecting, and the guest's answer
  static constexpr uint64_t kCloseMs = 8'000;    // both sides have shut down: until the guest's RST
  // After a transport reset nothing is said for so long: a driver that has not acted upon it yet would reset new connections as well.
  static constexpr uint64_t kResetMs = 1000;
  static constexpr uint64_t kDrainMs = 30'000;
  static constexpr uint32_t kFirstHostPort = 1u << 30;

  // `host` outlives it. `again`: another process has been this device before, and had connections, which the guest is told are lost.
  VsockDevice(VsockHost& host, uint64_t guest_cid, bool again);
  ~VsockDevice() override;

  [[nodiscard]] uint64_t features() const noexcept override { return virtio_vsock::kFeatureStream; }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return virtio_vsock::kQueues; }
  [[nodiscard]] std::span<const std::byte> config() const noexcept override { return std::as_bytes(std::span(&config_, 1)); }
  void OnHost(BackendHost& host) override { backend_ = &host; }
  void OnFeatures(uint64_t /*features*/) noexcept override { RemoveAll(); }
  void OnReset() noexcept override;
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;

  // A process of the host has connected.
  void OnAccepted(OwnedFd socket);
  void OnSocket(int fd, uint32_t events);
  // `socket` invalid: nobody is there.
  void OnConnected(uint64_t id, OwnedFd socket);
  void OnTick();
  [[nodiscard]] size_t connections() const { return connections_.size() + loose_.size(); }

 private:
  struct Reply {
    VsockPorts ports;
    uint16_t type;
  };
  bool Receive(BackendQueue& queue) noexcept;
  bool Transmit(BackendQueue& queue) noexcept;
  void SendEvents(BackendQueue& queue) noexcept;

  // From the guest.
  void OnPacket(const QueueChain& chain) noexcept;
  void OnRequest(VsockPorts ports, const virtio_vsock::Header& header) noexcept;
  void OnConnectionPacket(VsockConnection& connection, const virtio_vsock::Header& header, const QueueChain& chain) noexcept;
  [[nodiscard]] bool TakeData(VsockConnection& connection, uint32_t bytes, const QueueChain& chain) noexcept;
  // To the guest: what was written into the chain; 0: there was nothing to say after all.
  uint32_t FillNext(const QueueChain& chain) noexcept;
  uint32_t FillFrom(VsockConnection& connection, const QueueChain& chain) noexcept;
  uint32_t ReadInto(VsockConnection& connection, const QueueChain& chain) noexcept;
  uint32_t Packet(const QueueChain& chain, VsockConnection& connection, virtio_vsock::Op op, uint32_t len, uint32_t flags) noexcept;

  void OnGreeting(VsockConnection& connection);
  // After anything has changed: whether it is over, what to wait for, whether there is something for the guest. It may be gone then.
  void Update(VsockConnection& connection) noexcept;
  [[nodiscard]] bool HasSomething(const VsockConnection& connection) const noexcept;
  void WatchFor(VsockConnection& connection, uint32_t events) noexcept;
  void SetDeadline(VsockConnection& connection, uint64_t ms) noexcept;
  void Remove(VsockConnection& connection, bool reset) noexcept;
  void AddReply(VsockPorts ports, uint16_t type) noexcept;
  void RemoveAll() noexcept;
  void HoldUntil(uint64_t ms) noexcept;
  void CountChanged() noexcept;
  void KickReceive() noexcept;

  VsockHost& host_;
  const virtio_vsock::Config config_;
  BackendHost* backend_ = nullptr;
  std::map<VsockPorts, std::unique_ptr<VsockConnection>> connections_;
  std::map<int, std::unique_ptr<VsockConnection>> loose_;  // by socket: greeting, draining
  std::map<int, VsockConnection*> by_socket_;
  std::map<uint64_t, VsockPorts> asked_;  // of VsockHost::Connect
  std::map<int, std::string> greetings_;
  std::deque<VsockPorts> order_;  // of those that have something for the guest
  std::deque<Reply> replies_;     // RST, for packets of no connection
  uint64_t next_id_ = 1;
  uint32_t next_host_port_ = kFirstHostPort;
  bool accepts_ = true;
  bool in_receive_ = false;
  bool in_transmit_ = false;
  bool transmit_stalled_ = false;
  bool transport_reset_;
  uint64_t hold_until_ms_ = 0;  // 0: not at all
  QueueChain to_guest_, from_guest_, event_;
  std::vector<iovec> vectors_;
};

// `vmm device vsock`; descriptors of a jailed one: the listening socket, the connector's. argv as main has it.
int RunVsockDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VSOCK_VSOCK_DEVICE_H_
