#include "devices/virtio/net/net_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace vmm {
namespace {

namespace vn = virtio_net;

constexpr uint64_t Burst(uint64_t per_second) { return std::max<uint64_t>(per_second / 10, 1); }

template <typename T>
bool Load(std::span<const std::byte> from, size_t offset, T& to) noexcept {
  if (offset > from.size() || sizeof(T) > from.size() - offset) return false;
  std::memcpy(&to, from.data() + offset, sizeof(T));
  return true;
}

}  // namespace

NetDevice::Limit::Limit(const NetOptions& options)
    : bytes(options.bytes_per_second, Burst(options.bytes_per_second)),
      packets(options.packets_per_second, Burst(options.packets_per_second)) {}

NetDevice::NetDevice(NetWire& wire, const NetOptions& options, Clock clock, Sleeper sleeper)
    : wire_(wire),
      options_(options),
      clock_(std::move(clock)),
      sleeper_(std::move(sleeper)),
      receive_limit_(options),
      transmit_limit_(options),
      receivers_(options.pairs) {
  offered_ = wire.features() | vn::kFeatureMac | vn::kFeatureMrgRxbuf | vn::kFeatureStatus | vn::kFeatureCtrlVq | vn::kFeatureCtrlRx |
             vn::kFeatureCtrlMacAddr;
  if ((wire.features() & vn::kGuestOffloads) != 0) offered_ |= vn::kFeatureCtrlGuestOffloads;
  if (options.mtu != 0) offered_ |= vn::kFeatureMtu;
  if (options.pairs > 1) offered_ |= vn::kFeatureMq;
  std::copy(options.mac.begin(), options.mac.end(), config_.mac);
  config_.status = vn::kStatusLinkUp;
  config_.max_virtqueue_pairs = options.pairs;
  config_.mtu = options.mtu;
}

uint16_t NetDevice::control_index() const noexcept {
  return (features_ & vn::kFeatureMq) != 0 ? static_cast<uint16_t>(2 * options_.pairs) : 2;
}

void NetDevice::OnFeatures(uint64_t features) noexcept {
  // A driver begins with one pair and asks for more. One that has asked already, of a process that is no more, does not ask again: the
  // wire remembers, until the next driver.
  active_pairs_ = 1;
  if (!std::exchange(negotiated_, true)) {
    while (active_pairs_ < options_.pairs && wire_.active(active_pairs_)) ++active_pairs_;
  }
  features_ = features;
  wire_.SetOffloads(features & vn::kGuestOffloads);
}

bool NetDevice::Process(uint16_t index, BackendQueue& queue) noexcept {
  if ((features_ & vn::kFeatureCtrlVq) != 0 && index == control_index()) return Control(queue);
  const auto pair = static_cast<uint16_t>(index / 2);
  if (pair >= options_.pairs) return false;
  return index % 2 == 0 ? Receive(pair, queue) : Transmit(pair, queue);
}

void NetDevice::OnQueueStopped(uint16_t index) noexcept {
  const auto pair = static_cast<uint16_t>(index / 2);
  if (pair >= options_.pairs) return;
  if (index % 2 == 1) return wire_.WantOutput(pair, false);
  wire_.WantInput(pair, false);
  if (pair != 0) wire_.SetActive(pair, false);
  Receiver& receiver = receivers_[pair];
  for (; receiver.count != 0; --receiver.count) receiver.queue->Unpop(receiver.chains[receiver.count - 1]);
}

void NetDevice::Resume() {
  wake_at_ns_ = 0;
  for (uint16_t i = 0; i < 2 * options_.pairs; ++i) host_->Wake(i);
}

bool NetDevice::Admit(Limit& limit, uint64_t bytes) noexcept {
  const uint64_t now = clock_();
  uint64_t wait = limit.packets.Take(1, now);
  if (wait == 0) {
    wait = limit.bytes.Take(bytes, now);
    if (wait != 0) limit.packets.Return(1);
  }
  if (wait == 0) return true;
  if (wake_at_ns_ == 0 || now + wait < wake_at_ns_) {
    wake_at_ns_ = now + wait;
    sleeper_(wait);
  }
  return false;
}

// ---- To the guest

bool NetDevice::Receive(uint16_t pair, BackendQueue& queue) noexcept {
  Receiver& receiver = receivers_[pair];
  receiver.queue = &queue;
  // Without a control queue the front end starts the queues that are used (QEMU).
  const bool wanted = (features_ & vn::kFeatureCtrlVq) == 0 || pair < active_pairs_;
  if (pair != 0 && wire_.active(pair) != wanted) wire_.SetActive(pair, wanted);
  bool more = wanted;
  bool waits = false;  // for the wire
  size_t bytes = 0;
  for (int i = 0; more; ++i) {
    if (i == kQuantumPackets || bytes >= kQuantumBytes) return true;
    // One byte, so that somebody waits; the rest when it is known.
    more = Gather(receiver, queue) && Admit(receive_limit_, 1);
    if (!more) break;
    const size_t got = wire_.Receive(pair, vectors_);
    if (got == 0) {
      receive_limit_.packets.Return(1);
      receive_limit_.bytes.Return(1);
      waits = true;
      break;
    }
    receive_limit_.bytes.Charge(got > sizeof(vn::Header) + 1 ? got - sizeof(vn::Header) - 1 : 0);
    bytes += got;
    Deliver(receiver, queue, got);
  }
  wire_.WantInput(pair, waits);
  return false;
}

bool NetDevice::Gather(Receiver& receiver, BackendQueue& queue) noexcept {
  const bool merge = (features_ & vn::kFeatureMrgRxbuf) != 0;
  const bool large = (features_ & (vn::kGuestOffloads & ~vn::kFeatureGuestCsum)) != 0;
  const size_t wanted =
      sizeof(vn::Header) + (large ? vn::kMaxFrameBytes : vn::kLinkBytes + std::max(options_.mtu, vn::kUsualMtu));
  const size_t most = std::min<size_t>(queue.size(), kMaxHeld);
  vectors_.clear();
  room_ = 0;
  size_t used = 0;
  for (; used < most && vectors_.size() < NetWire::kMaxVectors; ++used) {
    if (used != 0 && (!merge || room_ >= wanted)) break;
    if (used == receiver.count) {
      if (receiver.chains.size() == used) receiver.chains.emplace_back();
      if (queue.Pop(receiver.chains[used]) != BackendQueue::PopResult::kChain) break;
      ++receiver.count;
    }
    for (const iovec& vector : receiver.chains[used].writable) {
      if (vectors_.size() == NetWire::kMaxVectors) break;  // the rest of it stays unused
      vectors_.push_back(vector);
      room_ += vector.iov_len;
    }
  }
  if (used == 0 || queue.fault() != BackendQueue::Fault::kNone) return false;
  return !merge || room_ >= wanted || 2 * used >= most || vectors_.size() == NetWire::kMaxVectors;
}

void NetDevice::Deliver(Receiver& receiver, BackendQueue& queue, size_t bytes) noexcept {
  if (bytes > room_) {
    ++stats_.too_large;
    return;  // into the next buffer's place: those that were written are not given
  }
  used_.clear();
  size_t left = bytes;
  for (size_t i = 0; left != 0; ++i) {
    const size_t part = std::min<size_t>(left, receiver.chains[i].writable_bytes);
    used_.push_back({&receiver.chains[i], static_cast<uint32_t>(part)});
    left -= part;
  }
  const auto buffers = static_cast<uint16_t>(used_.size());
  receiver.chains[0].Write(offsetof(vn::Header, num_buffers), std::as_bytes(std::span(&buffers, 1)));
  queue.PushTogether(used_);
  ++stats_.received;
  const auto begin = receiver.chains.begin();
  std::rotate(begin, begin + buffers, begin + static_cast<ptrdiff_t>(receiver.count));
  receiver.count -= buffers;
}

// ---- From the guest

bool IsSendable(const vn::Header& header, uint64_t features, size_t frame_bytes) noexcept {
  const bool needs_csum = (header.flags & vn::kFlagNeedsCsum) != 0;
  if (needs_csum) {
    if ((features & vn::kFeatureCsum) == 0) return false;
    if (size_t{header.csum_start} + header.csum_offset + sizeof(uint16_t) > frame_bytes) return false;
  }
  uint64_t needed = 0;
  switch (header.gso_type & ~vn::kGsoEcn) {
    case vn::kGsoNone: return header.gso_type == vn::kGsoNone;
    case vn::kGsoTcpV4: needed = vn::kFeatureHostTso4; break;
    case vn::kGsoTcpV6: needed = vn::kFeatureHostTso6; break;
    case vn::kGsoUdp: needed = vn::kFeatureHostUfo; break;
    case vn::kGsoUdpL4: needed = vn::kFeatureHostUso; break;
    default: return false;
  }
  if ((header.gso_type & vn::kGsoEcn) != 0) needed |= vn::kFeatureHostEcn;
  return needs_csum && (features & needed) == needed && header.gso_size != 0 && header.hdr_len <= frame_bytes;
}

NetWire::SendResult NetDevice::Send(uint16_t pair) noexcept {
  vn::Header header{};
  const size_t bytes = chain_.readable_bytes;
  if (chain_.Read(0, std::as_writable_bytes(std::span(&header, 1))) != sizeof(header) ||
      bytes < sizeof(header) + vn::kEthernetBytes || bytes > sizeof(header) + vn::kMaxFrameBytes ||
      chain_.readable.size() >= NetWire::kMaxVectors || !IsSendable(header, features_, bytes - sizeof(header))) {
    ++stats_.bad_headers;
    return NetWire::SendResult::kRefused;
  }
  // What a driver has no business to set is not passed on.
  header.flags &= vn::kFlagNeedsCsum;
  if (header.flags == 0) header.csum_start = header.csum_offset = 0;
  if (header.gso_type == vn::kGsoNone) header.hdr_len = header.gso_size = 0;
  header.num_buffers = 0;
  vectors_.clear();
  vectors_.push_back({&header, sizeof(header)});
  size_t skip = sizeof(header);
  for (const iovec& vector : chain_.readable) {
    const size_t skipped = std::min(skip, vector.iov_len);
    skip -= skipped;
    if (skipped != vector.iov_len) vectors_.push_back({static_cast<std::byte*>(vector.iov_base) + skipped, vector.iov_len - skipped});
  }
  const NetWire::SendResult result = wire_.Send(pair, vectors_);
  if (result == NetWire::SendResult::kSent) ++stats_.sent;
  if (result == NetWire::SendResult::kRefused) ++stats_.refused;
  return result;
}

bool NetDevice::Transmit(uint16_t pair, BackendQueue& queue) noexcept {
  size_t bytes = 0;
  for (int i = 0; i < kQuantumPackets && bytes < kQuantumBytes; ++i) {
    if (queue.Pop(chain_) != BackendQueue::PopResult::kChain) {
      wire_.WantOutput(pair, false);
      return false;
    }
    const uint64_t frame = chain_.readable_bytes > sizeof(vn::Header) ? chain_.readable_bytes - sizeof(vn::Header) : 1;
    if (!Admit(transmit_limit_, frame)) {
      queue.Unpop(chain_);
      return false;
    }
    if (Send(pair) == NetWire::SendResult::kBusy) {
      transmit_limit_.packets.Return(1);
      transmit_limit_.bytes.Return(frame);
      queue.Unpop(chain_);
      wire_.WantOutput(pair, true);
      return false;
    }
    bytes += frame;
    queue.Push(chain_, 0);
  }
  return true;
}

// ---- Commands

bool NetDevice::Control(BackendQueue& queue) noexcept {
  for (int i = 0; i < kQuantumPackets; ++i) {
    if (queue.Pop(chain_) != BackendQueue::PopResult::kChain) return false;
    if (chain_.writable_bytes == 0) {
      queue.Push(chain_, 0);  // nowhere to say how it went: it has not gone
      continue;
    }
    uint8_t ack = vn::kAckError;
    if (chain_.readable_bytes <= kMaxCommandBytes) {
      command_.resize(chain_.readable_bytes);
      command_.resize(chain_.Read(0, command_));
      ack = Command(command_);
    }
    chain_.Write(0, std::as_bytes(std::span(&ack, 1)));
    queue.Push(chain_, 1);
  }
  return true;
}

uint8_t NetDevice::Command(std::span<const std::byte> command) noexcept {
  uint8_t type = 0, number = 0;
  if (!Load(command, 0, type) || !Load(command, 1, number)) return vn::kAckError;
  const std::span<const std::byte> data = command.subspan(2);
  const auto accepted = [&](uint64_t feature) { return (features_ & feature) != 0; };
  if (type == vn::kClassRx && accepted(vn::kFeatureCtrlRx)) {
    // Nothing is filtered: promiscuous is what the device always is, and the specification lets it be.
    const bool known = number == vn::kRxPromisc || number == vn::kRxAllMulti;
    return known && data.size() == 1 ? vn::kAckOk : vn::kAckError;
  }
  if (type == vn::kClassMac) return SetMac(number, data);
  if (type == vn::kClassMq && number == vn::kMqVqPairsSet && accepted(vn::kFeatureMq)) {
    uint16_t pairs = 0;
    if (data.size() != sizeof(pairs) || !Load(data, 0, pairs) || pairs < 1 || pairs > options_.pairs) return vn::kAckError;
    active_pairs_ = pairs;
    for (uint16_t pair = 1; pair < options_.pairs; ++pair) host_->Wake(static_cast<uint16_t>(2 * pair));
    return vn::kAckOk;
  }
  if (type == vn::kClassGuestOffloads && number == vn::kGuestOffloadsSet && accepted(vn::kFeatureCtrlGuestOffloads)) {
    uint64_t offloads = 0;
    if (data.size() != sizeof(offloads) || !Load(data, 0, offloads) || (offloads & ~(features_ & vn::kGuestOffloads)) != 0) return vn::kAckError;
    wire_.SetOffloads(offloads);
    return vn::kAckOk;
  }
  return vn::kAckError;
}

uint8_t NetDevice::SetMac(uint8_t command, std::span<const std::byte> data) noexcept {
  if (command == vn::kMacAddrSet && (features_ & vn::kFeatureCtrlMacAddr) != 0) {
    if (data.size() != sizeof(config_.mac)) return vn::kAckError;
    std::memcpy(config_.mac, data.data(), data.size());
    return vn::kAckOk;
  }
  if (command != vn::kMacTableSet || (features_ & vn::kFeatureCtrlRx) == 0) return vn::kAckError;
  // Two tables, of which nothing follows (see above); they must be tables.
  for (int table = 0; table < 2; ++table) {
    uint32_t entries = 0;
    if (!Load(data, 0, entries)) return vn::kAckError;
    const uint64_t bytes = sizeof(entries) + uint64_t{entries} * sizeof(config_.mac);
    if (bytes > data.size()) return vn::kAckError;
    data = data.subspan(bytes);
  }
  return data.empty() ? vn::kAckOk : vn::kAckError;
}

}  // namespace vmm
