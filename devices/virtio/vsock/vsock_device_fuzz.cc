// A guest and processes of the host, both hostile, around the socket device: packets with any header, rings that hold garbage, host sockets
// that say, shut down and close what they like, at any time.
//
// Shapes   a list of steps: the step's kind in one byte, then what it takes. Ports are few, so that packets meet connections.
// Checks   what the guest is sent is a packet to it of as many bytes as it says; numbers stay within the device's bounds; no socket is ready
//          for ever.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/vsock/vsock_device.h"
#include "devices/virtio/vsock/vsock_layout.h"
#include "memory/gpa.h"

namespace {

using namespace vmm;
namespace vv = virtio_vsock;

constexpr uint64_t kCid = 3;
constexpr uint16_t kRingSize = 16;
constexpr uint32_t kBufferBytes = 512;
constexpr size_t kMostSteps = 200;
constexpr size_t kMostSockets = 32;
constexpr Gpa kTxData = FakeGuestRam::kBase + 0x1'0000;
constexpr Gpa kBuffers = FakeGuestRam::kBase + 0x4'0000;

class Input final {
 public:
  Input(const uint8_t* data, size_t bytes) : left_(data, bytes) {}
  [[nodiscard]] bool empty() const { return left_.empty(); }
  uint8_t Byte() {
    if (left_.empty()) return 0;
    const uint8_t byte = left_[0];
    left_ = left_.subspan(1);
    return byte;
  }
  uint32_t Word() { return uint32_t{Byte()} | uint32_t{Byte()} << 8 | uint32_t{Byte()} << 16 | uint32_t{Byte()} << 24; }
  std::span<const uint8_t> Bytes(size_t most) {
    const auto taken = left_.first(std::min(most, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> left_;
};

class Harness final : public VsockHost, public BackendHost {
 public:
  explicit Harness(bool again) : device_(*this, kCid, again) {
    if (!memory_.Add(FakeGuestRam::region(), ram_.fd()).ok()) std::abort();
    device_.OnHost(*this);
    for (uint16_t i = 0; i < vv::kQueues; ++i) queues_[i].Start(drivers_[i].Rings(memory_), 0, virtio::kFeatureIndirectDesc, memory_, &call_);
  }

  void Watch(int fd, uint32_t events) noexcept override {
    if (events == kUnwatched) {
      watched_.erase(fd);
    } else {
      watched_[fd] = events;
    }
  }
  bool Connect(uint64_t id, uint32_t) noexcept override {
    if (asked_.size() >= kMostSockets) return false;
    asked_.push_back(id);
    return true;
  }
  void WantAccept(bool wanted) noexcept override { accepts_ = wanted; }
  void WantTicks(bool) noexcept override {}
  uint64_t NowMs() noexcept override { return now_; }
  void ConfigChanged() override {}
  void Wake(uint16_t index) override {
    // A ring that holds garbage may have work for as long as it likes.
    for (int i = 0; i < 20 && device_.Process(index, queues_[index]); ++i) {
    }
    queues_[index].Notify();
  }

  void Step(Input& input) {
    switch (input.Byte() % 10) {
      case 0:
      case 1: return Packet(input);
      case 2: return Buffers(input.Byte());
      case 3: return Accept();
      case 4: return Say(input);
      case 5: return HangUp(input.Byte(), input.Byte());
      case 6: return Answer(input.Byte());
      case 7:
        now_ += uint64_t{input.Byte()} * 256;
        return device_.OnTick();
      case 8: return Garbage(input);
      default:
        if (input.Byte() % 4 == 0) {
          device_.OnReset();
        } else {
          device_.OnFeatures(vv::kFeatureStream);
        }
    }
  }
  void Settle() {
    for (int round = 0;; ++round) {
      if (round == 2000) std::abort();  // it spins
      bool any = false;
      const auto watched = watched_;
      for (const auto& [fd, events] : watched) {
        if (watched_.count(fd) == 0) continue;
        pollfd poll_fd{fd, static_cast<short>(events), 0};
        if (::poll(&poll_fd, 1, 0) <= 0) continue;
        any = true;
        device_.OnSocket(fd, static_cast<uint32_t>(poll_fd.revents));
      }
      if (!any) break;
    }
    for (const OwnedFd& fd : host_) {
      char bytes[4096];
      if (reads_ && fd.valid()) (void)!::recv(fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
    }
    reads_ = !reads_;
    if (garbage_) return;
    while (const auto used = drivers_[vv::kRx].Take()) {
      if (used->bytes == 0) continue;  // a buffer without room for a header goes back empty
      vv::Header header;
      std::memcpy(&header, ram_.At(Gpa(drivers_[vv::kRx].descriptor(static_cast<uint16_t>(used->id)).address)), sizeof(header));
      if (used->bytes != sizeof(header) + header.len || header.dst_cid != kCid || header.src_cid != vv::kHostCid) std::abort();
    }
    while (drivers_[vv::kTx].Take().has_value()) {
    }
    if (device_.connections() > VsockDevice::kMaxConnections || watched_.size() > VsockDevice::kMaxConnections) std::abort();
  }

 private:
  void Packet(Input& input) {
    vv::Header header{};
    const uint8_t shape = input.Byte();
    header.op = shape % 10;
    header.src_cid = (shape & 0x80) != 0 && (input.Byte() & 1) != 0 ? input.Word() : kCid;
    header.dst_cid = vv::kHostCid;
    header.src_port = 1000 + input.Byte() % 3;
    header.dst_port = (shape & 0x40) != 0 ? VsockDevice::kFirstHostPort + input.Byte() % 4 : 52 + input.Byte() % 2;
    header.type = (shape & 0x30) == 0x30 ? input.Byte() : vv::kTypeStream;
    header.flags = input.Byte() & 7;
    header.buf_alloc = input.Word();
    header.fwd_cnt = input.Byte();
    const auto data = input.Bytes(input.Byte());
    header.len = (shape & 0x20) != 0 ? input.Word() % 100'000 : static_cast<uint32_t>(data.size());
    std::memcpy(ram_.At(kTxData), &header, sizeof(header));
    if (!data.empty()) std::memcpy(ram_.At(kTxData + sizeof(header)), data.data(), data.size());
    const auto bytes = static_cast<uint32_t>(sizeof(header) + data.size());
    const uint32_t first = 1 + input.Byte() % (bytes - 1);
    drivers_[vv::kTx].Offer({{kTxData, first}, {kTxData + first, bytes - first}});
    Wake(vv::kTx);
  }
  void Buffers(uint8_t how) {
    for (uint16_t i = 0; i < 4; ++i) {
      // Some too small for a header.
      drivers_[vv::kRx].Offer({{kBuffers + uint64_t{i} * kBufferBytes, (how & 0x80) != 0 ? how % 64u : kBufferBytes, true}});
    }
    drivers_[vv::kEvent].Offer({{kTxData + 0x8000, 4, true}});
    Wake(vv::kRx);
    Wake(vv::kEvent);
  }
  std::optional<OwnedFd> Pair() {
    int pair[2];
    if (host_.size() >= kMostSockets || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return std::nullopt;
    host_.emplace_back(pair[1]);
    return OwnedFd(pair[0]);
  }
  void Accept() {
    if (!accepts_) return;
    if (auto socket = Pair()) device_.OnAccepted(*std::move(socket));
  }
  void Say(Input& input) {
    if (host_.empty()) return;
    const OwnedFd& fd = host_[input.Byte() % host_.size()];
    const uint8_t kind = input.Byte();
    if (!fd.valid()) return;
    if (kind % 2 == 0) {
      (void)!::send(fd.get(), "CONNECT 1000\n", 13, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
      const auto bytes = input.Bytes(kind);
      (void)!::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }
  void HangUp(uint8_t which, uint8_t how) {
    if (host_.empty()) return;
    OwnedFd& fd = host_[which % host_.size()];
    if (!fd.valid()) return;
    if (how % 3 == 0) {
      fd.Reset();
    } else {
      ::shutdown(fd.get(), how % 3 == 1 ? SHUT_WR : SHUT_RD);
    }
  }
  void Answer(uint8_t how) {
    if (asked_.empty()) return;
    const uint64_t id = asked_[how / 2 % asked_.size()];
    std::erase(asked_, id);
    auto socket = how % 2 == 0 ? Pair() : std::nullopt;
    device_.OnConnected(id, socket ? *std::move(socket) : OwnedFd());
  }
  // Descriptors and an available ring of any content, on one of the queues.
  void Garbage(Input& input) {
    garbage_ = true;
    const uint16_t queue = input.Byte() % vv::kQueues;
    const auto table = input.Bytes(virtio::DescriptorBytes(kRingSize));
    if (!table.empty()) std::memcpy(ram_.At(drivers_[queue].descriptors()), table.data(), table.size());
    for (uint16_t i = 0; i < kRingSize; ++i) {
      auto& descriptor = ram_.Word<virtio::Descriptor>(drivers_[queue].descriptors() + 16 * uint64_t{i});
      if ((descriptor.flags & 0x7000) != 0) descriptor.address = kTxData.raw() + (descriptor.address & 0x3ff0);
    }
    const auto available = input.Bytes(virtio::AvailBytes(kRingSize));
    if (!available.empty()) std::memcpy(ram_.At(drivers_[queue].available()), available.data(), available.size());
    Wake(queue);
  }

  FakeGuestRam ram_;
  FakeGuestDriver drivers_[vv::kQueues] = {{ram_, kRingSize, FakeGuestRam::kBase},
                                           {ram_, kRingSize, FakeGuestRam::kBase + 0x4000},
                                           {ram_, kRingSize, FakeGuestRam::kBase + 0x8000}};
  BackendMemory memory_;
  EventFd call_ = *EventFd::Create();
  BackendQueue queues_[vv::kQueues];
  std::map<int, uint32_t> watched_;
  std::vector<uint64_t> asked_;
  std::vector<OwnedFd> host_;
  bool accepts_ = true;
  bool garbage_ = false;
  bool reads_ = true;
  uint64_t now_ = 1;
  VsockDevice device_;  // the first to go
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto harness = std::make_unique<Harness>(input.Byte() % 2 == 1);
  for (size_t i = 0; i < kMostSteps && !input.empty(); ++i) {
    harness->Step(input);
    harness->Settle();
  }
  return 0;
}
