// A wire that remembers what was sent and gives what a test puts into it. Testonly: for tests of the network device, on one thread.
#ifndef VMM_DEVICES_VIRTIO_NET_FAKE_NET_WIRE_H_
#define VMM_DEVICES_VIRTIO_NET_FAKE_NET_WIRE_H_

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/net/net_wire.h"

namespace vmm {

class FakeNetWire final : public NetWire {
 public:
  struct Packet {
    uint16_t pair;
    virtio_net::Header header;
    std::string frame;
  };
  FakeNetWire(uint16_t pairs, uint64_t features)
      : incoming(pairs), is_active(pairs, false), wants_input(pairs, false), wants_output(pairs, false), features_(features) {
    is_active[0] = true;
  }
  uint64_t features() const noexcept override { return features_; }
  void SetOffloads(uint64_t features) noexcept override { offloads = features; }
  uint16_t pairs() const noexcept override { return static_cast<uint16_t>(incoming.size()); }
  bool active(uint16_t pair) const noexcept override { return is_active[pair]; }
  void SetActive(uint16_t pair, bool active) noexcept override { is_active[pair] = active; }
  SendResult Send(uint16_t pair, std::span<iovec> packet) noexcept override {
    if (result != SendResult::kSent) return result;
    std::string all;
    for (const iovec& vector : packet) all.append(static_cast<const char*>(vector.iov_base), vector.iov_len);
    Packet to{pair, {}, all.substr(sizeof(virtio_net::Header))};
    std::memcpy(&to.header, all.data(), sizeof(to.header));
    sent.push_back(to);
    return result;
  }
  size_t Receive(uint16_t pair, std::span<iovec> room) noexcept override {
    if (incoming[pair].empty()) return 0;
    // The header's last field is not the wire's.
    std::string all(sizeof(virtio_net::Header), 'h');
    all += incoming[pair].front();
    incoming[pair].pop_front();
    size_t at = 0;
    for (const iovec& vector : room) {
      const size_t part = std::min(vector.iov_len, all.size() - at);
      std::memcpy(vector.iov_base, all.data() + at, part);
      at += part;
    }
    return all.size();
  }
  void WantInput(uint16_t pair, bool wanted) noexcept override { wants_input[pair] = wanted; }
  void WantOutput(uint16_t pair, bool wanted) noexcept override { wants_output[pair] = wanted; }

  std::vector<std::deque<std::string>> incoming;
  std::vector<bool> is_active, wants_input, wants_output;
  std::vector<Packet> sent;
  SendResult result = SendResult::kSent;
  uint64_t offloads = 0;

 private:
  const uint64_t features_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_FAKE_NET_WIRE_H_
