#include "devices/virtio/vsock/vsock_device.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace vmm {
namespace {

namespace vv = virtio_vsock;

using State = VsockConnection::State;

constexpr uint32_t kShutdownBoth = vv::kShutdownReceive | vv::kShutdownSend;

bool HungUp(int fd) {
  pollfd poll_fd{fd, 0, 0};
  return ::poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLHUP) != 0;
}

// "CONNECT port", without its end of line.
std::optional<uint32_t> PortOf(absl::string_view line) {
  uint32_t port;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (!absl::ConsumePrefix(&line, "CONNECT ") || !std::all_of(line.begin(), line.end(), digit) || !absl::SimpleAtoi(line, &port)) {
    return std::nullopt;
  }
  return port;
}

}  // namespace

VsockDevice::VsockDevice(VsockHost& host, uint64_t guest_cid, bool again) : host_(host), config_{guest_cid}, transport_reset_(again) {
  if (!again) return;
  const uint64_t now = host.NowMs();
  HoldUntil(now + kAnswerMs);
  // Not the ports of connections that the guest may still hold.
  next_host_port_ += static_cast<uint32_t>(now * kMaxConnections % kFirstHostPort);
}

VsockDevice::~VsockDevice() = default;

// ---- Life of a connection

void VsockDevice::CountChanged() noexcept {
  const bool accepts = connections() < kMaxConnections;
  if (accepts == accepts_) return;
  accepts_ = accepts;
  host_.WantAccept(accepts);
}

void VsockDevice::AddReply(VsockPorts ports, uint16_t type) noexcept {
  // The guest's own are bounded by Transmit, those of connections by their number: this is for a guest that takes none at all.
  if (replies_.size() < 4 * kMaxReplies) replies_.push_back({ports, type});
}

void VsockDevice::WatchFor(VsockConnection& connection, uint32_t events) noexcept {
  if (connection.watched == events || !connection.socket.valid()) return;
  connection.watched = events;
  host_.Watch(connection.socket.get(), events);
}

void VsockDevice::SetDeadline(VsockConnection& connection, uint64_t ms) noexcept {
  connection.deadline_ms = host_.NowMs() + ms;
  host_.WantTicks(true);
}

void VsockDevice::Remove(VsockConnection& connection, bool reset) noexcept {
  const VsockPorts ports = connection.ports;
  const int fd = connection.socket.get();
  if (fd >= 0) {
    WatchFor(connection, VsockHost::kUnwatched);
    by_socket_.erase(fd);
    greetings_.erase(fd);
  }
  if (connection.queued) std::erase(order_, ports);
  // A guest that was never told of it need not be told of its end.
  if ((connection.pending & VsockConnection::kRequest) != 0) reset = false;
  if (connection.state == State::kGreeting || connection.state == State::kDraining) {
    loose_.erase(fd);
  } else {
    connections_.erase(ports);
  }
  CountChanged();
  if (!reset) return;
  AddReply(ports, vv::kTypeStream);
  KickReceive();
}

void VsockDevice::RemoveAll() noexcept {
  // Those that the guest has not been told of go on: who connects while the device starts is not turned away.
  for (auto next = connections_.begin(); next != connections_.end();) {
    VsockConnection& connection = *(next++)->second;
    if ((connection.pending & VsockConnection::kRequest) == 0) Remove(connection, /*reset=*/false);
  }
  replies_.clear();
  transmit_stalled_ = false;
}

void VsockDevice::OnReset() noexcept {
  RemoveAll();
  hold_until_ms_ = 0;
  transport_reset_ = false;
}

void VsockDevice::HoldUntil(uint64_t ms) noexcept {
  hold_until_ms_ = ms;
  host_.WantTicks(true);
}

bool VsockDevice::HasSomething(const VsockConnection& connection) const noexcept {
  if (connection.pending != VsockConnection::kNothing) return true;
  return connection.state == State::kOpen && connection.readable && connection.Credit() > 0 &&
         (connection.our_shutdown & vv::kShutdownSend) == 0 && (connection.guest_shutdown & vv::kShutdownReceive) == 0;
}

void VsockDevice::Update(VsockConnection& connection) noexcept {
  if (connection.state == State::kDraining) {
    if (!connection.waiting()) return Remove(connection, /*reset=*/false);
    return WatchFor(connection, EPOLLOUT);
  }
  if (connection.state == State::kOpen) {
    const bool guest_done = (connection.guest_shutdown & vv::kShutdownSend) != 0;
    if (connection.guest_shutdown == kShutdownBoth && !connection.waiting()) return Remove(connection, /*reset=*/true);
    if (guest_done && !connection.waiting()) ::shutdown(connection.socket.get(), SHUT_WR);
    if (connection.host_refuses() && (connection.our_shutdown & vv::kShutdownReceive) == 0 && !guest_done) {
      connection.our_shutdown |= vv::kShutdownReceive;
      connection.pending |= VsockConnection::kShutdown;
    }
    if (connection.ShouldTell()) connection.pending |= VsockConnection::kCreditUpdate;
    const bool reads = (connection.our_shutdown & vv::kShutdownSend) == 0 && (connection.guest_shutdown & vv::kShutdownReceive) == 0;
    // Muted is not unwatched: a socket whose other end is gone is ready for ever, and is only listened to until that is known.
    uint32_t events = VsockHost::kUnwatched;
    if (connection.waiting()) events = EPOLLOUT;
    if (reads && !connection.readable) events = (events == VsockHost::kUnwatched ? 0 : events) | EPOLLIN;
    const bool half_closed = !reads && (connection.our_shutdown & vv::kShutdownReceive) == 0;
    if (events == VsockHost::kUnwatched && half_closed) events = 0;
    WatchFor(connection, events);
  }
  if (HasSomething(connection) && !std::exchange(connection.queued, true)) {
    order_.push_back(connection.ports);
    KickReceive();
  }
}

void VsockDevice::KickReceive() noexcept {
  // While queue 1 is worked on it is done at its end; while queue 0 is, its loop goes on.
  if (!in_receive_ && !in_transmit_ && backend_ != nullptr) backend_->Wake(vv::kRx);
}

// ---- The host's side

void VsockDevice::OnAccepted(OwnedFd socket) {
  if (connections() >= kMaxConnections) return;
  const int fd = socket.get();
  auto connection = std::make_unique<VsockConnection>(VsockPorts{}, State::kGreeting);
  connection->watched = VsockHost::kUnwatched;
  connection->socket = std::move(socket);
  by_socket_[fd] = connection.get();
  SetDeadline(*connection, kAnswerMs);
  WatchFor(*connection, EPOLLIN);
  loose_[fd] = std::move(connection);
  CountChanged();
}

void VsockDevice::OnGreeting(VsockConnection& greeting) {
  const int fd = greeting.socket.get();
  std::string& line = greetings_[fd];
  std::array<char, kMaxGreetingBytes> text;
  iovec vector{text.data(), text.size() - line.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  // Looked at first: what comes behind the line is the stream's.
  const ssize_t there = ::recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT);
  if (there < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (there <= 0) return Remove(greeting, /*reset=*/false);
  const absl::string_view seen(text.data(), static_cast<size_t>(there));
  const size_t end = seen.find('\n');
  vector = {text.data(), end == absl::string_view::npos ? seen.size() : end + 1};
  message = msghdr{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (::recvmsg(fd, &message, MSG_DONTWAIT) != static_cast<ssize_t>(vector.iov_len)) return Remove(greeting, /*reset=*/false);
  absl::StrAppend(&line, seen.substr(0, end));
  if (end == absl::string_view::npos) {
    if (line.size() >= kMaxGreetingBytes) Remove(greeting, /*reset=*/false);
    return;
  }
  const std::optional<uint32_t> port = PortOf(line);
  if (!port.has_value()) return Remove(greeting, /*reset=*/false);
  VsockPorts ports{*port, 0};
  do {
    ports.host = next_host_port_++;
    if (next_host_port_ < kFirstHostPort) next_host_port_ = kFirstHostPort;
  } while (connections_.count(ports) != 0);
  auto connection = std::make_unique<VsockConnection>(ports, State::kOffered);
  WatchFor(greeting, VsockHost::kUnwatched);
  connection->watched = VsockHost::kUnwatched;
  connection->socket = std::move(greeting.socket);
  loose_.erase(fd);
  greetings_.erase(fd);
  VsockConnection& offered = *connection;
  by_socket_[fd] = &offered;
  connections_[ports] = std::move(connection);
  offered.pending = VsockConnection::kRequest;
  SetDeadline(offered, kAnswerMs);
  WatchFor(offered, 0);  // that it goes away
  Update(offered);
}

void VsockDevice::OnSocket(int fd, uint32_t events) {
  const auto found = by_socket_.find(fd);
  if (found == by_socket_.end()) return;
  VsockConnection& connection = *found->second;
  const bool hung_up = (events & (EPOLLHUP | EPOLLERR)) != 0;
  switch (connection.state) {
    case State::kGreeting: return OnGreeting(connection);
    case State::kOffered:
      if (hung_up) Remove(connection, /*reset=*/true);
      return;
    case State::kAsked: return;
    case State::kDraining:
    case State::kOpen: break;
  }
  if (hung_up || (events & EPOLLOUT) != 0) connection.Flush();
  if (hung_up || (events & EPOLLIN) != 0) connection.readable = true;
  const bool read_all = (connection.our_shutdown & vv::kShutdownSend) != 0 || (connection.guest_shutdown & vv::kShutdownReceive) != 0;
  if (hung_up && read_all && connection.our_shutdown != kShutdownBoth) {
    connection.our_shutdown = kShutdownBoth;
    connection.pending |= VsockConnection::kShutdown;
  }
  Update(connection);
}

void VsockDevice::OnConnected(uint64_t id, OwnedFd socket) {
  const auto asked = asked_.find(id);
  if (asked == asked_.end()) return;
  const auto found = connections_.find(asked->second);
  asked_.erase(asked);
  if (found == connections_.end() || found->second->asked_id != id) return;  // given up meanwhile
  VsockConnection& connection = *found->second;
  connection.asked_id = 0;
  if (!socket.valid()) return Remove(connection, /*reset=*/true);
  connection.socket = std::move(socket);
  by_socket_[connection.socket.get()] = &connection;
  connection.state = State::kOpen;
  connection.deadline_ms = 0;
  connection.pending = VsockConnection::kResponse;
  Update(connection);
}

void VsockDevice::OnTick() {
  const uint64_t now = host_.NowMs();
  std::vector<VsockConnection*> late;
  bool left = now < hold_until_ms_;
  const auto look = [&](VsockConnection& connection) {
    if (connection.deadline_ms == 0) return;
    if (now >= connection.deadline_ms) {
      late.push_back(&connection);
    } else {
      left = true;
    }
  };
  for (const auto& [ports, connection] : connections_) look(*connection);
  for (const auto& [fd, connection] : loose_) look(*connection);
  // What is said to the guest because of one may be the end of another: after all of them.
  in_transmit_ = true;
  for (VsockConnection* const connection : late) {
    Remove(*connection, connection->state != State::kGreeting && connection->state != State::kDraining);
  }
  in_transmit_ = false;
  if (!left) host_.WantTicks(false);
  if (!replies_.empty() || !order_.empty()) KickReceive();
}

// ---- From the guest

void VsockDevice::OnRequest(VsockPorts ports, const vv::Header& header) noexcept {
  const bool room = connections() < kMaxConnections && asked_.size() < kMaxConnections;
  const uint64_t id = next_id_++;
  if (!room || !host_.Connect(id, ports.host)) {
    return AddReply(ports, vv::kTypeStream);
  }
  auto connection = std::make_unique<VsockConnection>(ports, State::kAsked);
  connection->watched = VsockHost::kUnwatched;
  connection->HearCredit(header.buf_alloc, header.fwd_cnt);
  connection->asked_id = id;
  SetDeadline(*connection, kAnswerMs);
  connections_[ports] = std::move(connection);
  asked_[id] = ports;
  CountChanged();
}

bool VsockDevice::TakeData(VsockConnection& connection, uint32_t bytes, const QueueChain& chain) noexcept {
  if (connection.state != State::kOpen || (connection.guest_shutdown & vv::kShutdownSend) != 0) return false;
  if (bytes > chain.readable_bytes - sizeof(vv::Header)) return false;
  vectors_.clear();
  uint64_t skip = sizeof(vv::Header);
  uint64_t left = bytes;
  for (const iovec& segment : chain.readable) {
    const uint64_t skipped = std::min<uint64_t>(skip, segment.iov_len);
    skip -= skipped;
    const uint64_t part = std::min<uint64_t>(segment.iov_len - skipped, left);
    if (part != 0) vectors_.push_back({static_cast<std::byte*>(segment.iov_base) + skipped, part});
    left -= part;
  }
  return connection.Take(vectors_, bytes);
}

void VsockDevice::OnConnectionPacket(VsockConnection& connection, const vv::Header& header, const QueueChain& chain) noexcept {
  connection.HearCredit(header.buf_alloc, header.fwd_cnt);
  bool good = connection.state == State::kOpen;
  switch (static_cast<vv::Op>(header.op)) {
    case vv::Op::kResponse: {
      good = connection.state == State::kOffered;
      if (!good) break;
      std::string ok = absl::StrCat("OK ", connection.ports.host, "\n");
      iovec vector{ok.data(), ok.size()};
      msghdr message{};
      message.msg_iov = &vector;
      message.msg_iovlen = 1;
      // Its buffer is empty: all or nothing.
      good = ::sendmsg(connection.socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(ok.size());
      connection.state = State::kOpen;
      connection.deadline_ms = 0;
      break;
    }
    case vv::Op::kRst:
      if (connection.state == State::kOpen && connection.waiting() && (connection.guest_shutdown & vv::kShutdownSend) != 0) {
        // It had said all: what it said is still to arrive. Its ports are free again.
        const int fd = connection.socket.get();
        auto draining = std::make_unique<VsockConnection>(std::move(connection));
        draining->state = State::kDraining;
        draining->queued = false;
        if (connection.queued) std::erase(order_, connection.ports);
        connections_.erase(draining->ports);
        VsockConnection& rest = *draining;
        by_socket_[fd] = &rest;
        loose_[fd] = std::move(draining);
        SetDeadline(rest, kDrainMs);
        return Update(rest);
      }
      return Remove(connection, /*reset=*/false);
    case vv::Op::kShutdown:
      connection.guest_shutdown |= header.flags & kShutdownBoth;
      if (good && (connection.guest_shutdown & vv::kShutdownReceive) != 0) ::shutdown(connection.socket.get(), SHUT_RD);
      break;
    case vv::Op::kRw: good = TakeData(connection, header.len, chain); break;
    case vv::Op::kCreditUpdate: break;
    case vv::Op::kCreditRequest: connection.pending |= VsockConnection::kCreditUpdate; break;
    default: good = false; break;
  }
  if (!good) return Remove(connection, /*reset=*/true);
  Update(connection);
}

void VsockDevice::OnPacket(const QueueChain& chain) noexcept {
  vv::Header header;
  if (chain.Read(0, std::as_writable_bytes(std::span(&header, 1))) != sizeof(header)) return;
  // Not to the host, or not from this guest: nobody is there to answer.
  if (header.src_cid != config_.guest_cid || header.dst_cid != vv::kHostCid) return;
  const VsockPorts ports{header.src_port, header.dst_port};
  const auto op = static_cast<vv::Op>(header.op);
  if (header.type != vv::kTypeStream) {
    if (op != vv::Op::kRst) AddReply(ports, header.type);
    return;
  }
  const auto found = connections_.find(ports);
  if (found != connections_.end()) return OnConnectionPacket(*found->second, header, chain);
  if (op == vv::Op::kRequest) return OnRequest(ports, header);
  if (op != vv::Op::kRst) AddReply(ports, vv::kTypeStream);
}

bool VsockDevice::Transmit(BackendQueue& queue) noexcept {
  in_transmit_ = true;
  bool more = true;
  for (int i = 0; i < kQuantum; ++i) {
    if (replies_.size() >= kMaxReplies) {
      // The guest takes its answers before it says more.
      transmit_stalled_ = true;
      more = false;
      break;
    }
    if (queue.Pop(from_guest_) != BackendQueue::PopResult::kChain) {
      more = false;
      break;
    }
    OnPacket(from_guest_);
    queue.Push(from_guest_, 0);
  }
  // Each of the two kicks the other at most once, from its outermost call.
  if (!in_receive_ && (!order_.empty() || !replies_.empty())) backend_->Wake(vv::kRx);
  in_transmit_ = false;
  if (transmit_stalled_ && replies_.size() < kMaxReplies) {
    transmit_stalled_ = false;
    more = true;
  }
  return more;
}

// ---- To the guest

uint32_t VsockDevice::Packet(const QueueChain& chain, VsockConnection& connection, vv::Op op, uint32_t len, uint32_t flags) noexcept {
  const vv::Header header{vv::kHostCid,
                          config_.guest_cid,
                          connection.ports.host,
                          connection.ports.guest,
                          len,
                          vv::kTypeStream,
                          static_cast<uint16_t>(op),
                          flags,
                          VsockConnection::kBufferBytes,
                          connection.forwarded()};
  (void)chain.Write(0, std::as_bytes(std::span(&header, 1)));
  // Every packet tells our credit.
  connection.Told();
  connection.pending &= static_cast<uint8_t>(~VsockConnection::kCreditUpdate);
  return static_cast<uint32_t>(sizeof(header)) + len;
}

uint32_t VsockDevice::ReadInto(VsockConnection& connection, const QueueChain& chain) noexcept {
  vectors_.clear();
  uint64_t skip = sizeof(vv::Header);
  uint64_t left = connection.Credit();
  for (const iovec& segment : chain.writable) {
    const uint64_t skipped = std::min<uint64_t>(skip, segment.iov_len);
    skip -= skipped;
    const uint64_t part = std::min<uint64_t>(segment.iov_len - skipped, left);
    if (part != 0) vectors_.push_back({static_cast<std::byte*>(segment.iov_base) + skipped, part});
    left -= part;
  }
  if (vectors_.empty()) return 0;  // a buffer for a header alone
  msghdr message{};
  message.msg_iov = vectors_.data();
  message.msg_iovlen = vectors_.size();
  // Descriptors that come along are closed by the kernel: there is no room for them.
  const ssize_t got = ::recvmsg(connection.socket.get(), &message, MSG_DONTWAIT);
  if (got > 0) {
    connection.Sent(static_cast<uint32_t>(got));
    return Packet(chain, connection, vv::Op::kRw, static_cast<uint32_t>(got), 0);
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    connection.readable = false;
    return 0;
  }
  connection.our_shutdown |= vv::kShutdownSend;
  if (got < 0 || HungUp(connection.socket.get())) connection.our_shutdown |= vv::kShutdownReceive;
  connection.pending |= VsockConnection::kShutdown;
  return FillFrom(connection, chain);
}

uint32_t VsockDevice::FillFrom(VsockConnection& connection, const QueueChain& chain) noexcept {
  const auto take = [&](VsockConnection::Pending what) {
    const bool there = (connection.pending & what) != 0;
    connection.pending &= static_cast<uint8_t>(~what);
    return there;
  };
  if (take(VsockConnection::kRequest)) return Packet(chain, connection, vv::Op::kRequest, 0, 0);
  if (take(VsockConnection::kResponse)) return Packet(chain, connection, vv::Op::kResponse, 0, 0);
  if (take(VsockConnection::kShutdown)) {
    if (connection.our_shutdown == kShutdownBoth) SetDeadline(connection, kCloseMs);
    return Packet(chain, connection, vv::Op::kShutdown, 0, connection.our_shutdown);
  }
  if (HasSomething(connection) && connection.state == State::kOpen && connection.readable && connection.Credit() > 0) {
    if (const uint32_t bytes = ReadInto(connection, chain); bytes != 0) return bytes;
  }
  if (take(VsockConnection::kCreditUpdate)) return Packet(chain, connection, vv::Op::kCreditUpdate, 0, 0);
  return 0;
}

uint32_t VsockDevice::FillNext(const QueueChain& chain) noexcept {
  if (!replies_.empty()) {
    const Reply reply = replies_.front();
    replies_.pop_front();
    const vv::Header header{vv::kHostCid, config_.guest_cid, reply.ports.host, reply.ports.guest, 0,
                            reply.type,   static_cast<uint16_t>(vv::Op::kRst), 0, 0, 0};
    (void)chain.Write(0, std::as_bytes(std::span(&header, 1)));
    return sizeof(header);
  }
  const auto found = connections_.find(order_.front());
  order_.pop_front();
  if (found == connections_.end()) return 0;
  VsockConnection& connection = *found->second;
  connection.queued = false;
  const uint32_t bytes = FillFrom(connection, chain);
  // To the end of the order, if it has more: each has its turn.
  Update(connection);
  return bytes;
}

bool VsockDevice::Receive(BackendQueue& queue) noexcept {
  if (hold_until_ms_ != 0) {
    if (host_.NowMs() < hold_until_ms_) return false;  // OnTick goes on
    hold_until_ms_ = 0;
  }
  in_receive_ = true;
  bool has_chain = false;
  bool has_room = true;
  for (int i = 0; i < kQuantum && (!replies_.empty() || !order_.empty()); ++i) {
    if (!has_chain) {
      has_room = queue.Pop(to_guest_) == BackendQueue::PopResult::kChain;
      if (!has_room) break;  // until the guest gives buffers
      if (to_guest_.writable_bytes <= sizeof(vv::Header)) {
        queue.Push(to_guest_, 0);
        continue;
      }
    }
    const uint32_t bytes = FillNext(to_guest_);
    has_chain = bytes == 0;
    if (!has_chain) queue.Push(to_guest_, bytes);
  }
  if (has_chain) queue.Unpop(to_guest_);
  if (transmit_stalled_ && !in_transmit_ && replies_.size() < kMaxReplies / 2) {
    transmit_stalled_ = false;
    backend_->Wake(vv::kTx);
  }
  in_receive_ = false;
  return has_room && (!replies_.empty() || !order_.empty());
}

void VsockDevice::SendEvents(BackendQueue& queue) noexcept {
  if (!transport_reset_ || queue.Pop(event_) != BackendQueue::PopResult::kChain) return;
  const vv::Event event{vv::kEventTransportReset};
  const size_t written = event_.Write(0, std::as_bytes(std::span(&event, 1)));
  if (written == sizeof(event)) {
    transport_reset_ = false;
    HoldUntil(host_.NowMs() + kResetMs);
  }
  queue.Push(event_, static_cast<uint32_t>(written));
}

bool VsockDevice::Process(uint16_t index, BackendQueue& queue) noexcept {
  switch (index) {
    case vv::kRx: return Receive(queue);
    case vv::kTx: return Transmit(queue);
    default: SendEvents(queue); return false;
  }
}

}  // namespace vmm
