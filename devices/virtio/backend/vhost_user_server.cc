#include "devices/virtio/backend/vhost_user_server.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {
namespace {

namespace v = virtio;
namespace vu = vhost_user;

constexpr uint64_t kRingFeatures = v::kFeatureVersion1 | v::kFeatureIndirectDesc | v::kFeatureEventIdx | vu::kFeatureProtocolFeatures;
constexpr uint64_t kProtocolFeatures = vu::kProtocolMq | vu::kProtocolReplyAck | vu::kProtocolBackendReq | vu::kProtocolConfig |
                                       vu::kProtocolInflightShmfd | vu::kProtocolResetDevice | vu::kProtocolStatus | vu::kProtocolConfigureMemSlots;
constexpr uint64_t kMaxInflightOffset = uint64_t{1} << 40;

}  // namespace

absl::StatusOr<std::unique_ptr<VhostUserServer>> VhostUserServer::Create(EventLoop& loop, OwnedFd socket, BackendDevice& device,
                                                                         Callbacks callbacks) {
  std::unique_ptr<VhostUserServer> server(new VhostUserServer(loop, std::move(socket), device, std::move(callbacks)));
  server->inflight_fd_.Reset(::memfd_create("inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!server->inflight_fd_.valid()) return ErrnoStatus(errno, "create the in-flight region");
  if (::ftruncate(server->inflight_fd_.get(), static_cast<off_t>(InflightBytes(device.queue_count()))) != 0) {
    return ErrnoStatus(errno, "size the in-flight region");
  }
  // A front end that cuts it would end us where we write to it.
  if (::fcntl(server->inflight_fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal the in-flight region");
  }
  device.OnHost(*server);
  RETURN_IF_ERROR(loop.Watch(server->channel_.fd(), EPOLLIN, [raw = server.get()](uint32_t) { raw->OnMessage(); }));
  return server;
}

VhostUserServer::VhostUserServer(EventLoop& loop, OwnedFd socket, BackendDevice& device, Callbacks callbacks)
    : loop_(loop), device_(device), callbacks_(std::move(callbacks)), channel_(std::move(socket)) {
  for (uint16_t i = 0; i < device.queue_count(); ++i) queues_.push_back(std::make_unique<Queue>());
}

VhostUserServer::~VhostUserServer() {
  StopAll();
  for (const auto& queue : queues_) {
    if (queue->kick.fd() >= 0) loop_.Unwatch(queue->kick.fd());
  }
  if (!ended_) loop_.Unwatch(channel_.fd());
}

uint64_t VhostUserServer::offered() const { return device_.features() | kRingFeatures; }

void VhostUserServer::End(const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  StopAll();
  loop_.Unwatch(channel_.fd());
  callbacks_.on_end(status);
}

void VhostUserServer::OnMessage() {
  absl::Status status = channel_.Receive(message_, VhostUserChannel::NowMs() + kMessageMs);
  if (absl::IsUnavailable(status)) return End(absl::OkStatus());
  const uint32_t request = message_.header.request;
  const bool wants_ack = (message_.header.flags & vu::kFlagNeedReply) != 0 && (protocol_features_ & vu::kProtocolReplyAck) != 0;
  bool replied = false;
  if (status.ok()) {
    switch (static_cast<vu::Request>(request)) {
      case vu::Request::kGetFeatures:
      case vu::Request::kGetProtocolFeatures:
      case vu::Request::kGetQueueNum:
      case vu::Request::kGetVringBase:
      case vu::Request::kGetConfig:
      case vu::Request::kGetInflightFd:
      case vu::Request::kGetMaxMemSlots:
      case vu::Request::kGetStatus: replied = true; break;
      default: break;
    }
    status = Handle();
  }
  if (status.ok() && wants_ack && !replied) status = Reply(uint64_t{0});
  if (!status.ok()) End(absl::Status(status.code(), absl::StrCat("request ", request, " of the front end: ", status.message())));
}

template <typename T>
absl::Status VhostUserServer::Reply(const T& payload) {
  return channel_.Send(message_.header.request, vu::kFlagReply, std::as_bytes(std::span(&payload, 1)), {},
                       VhostUserChannel::NowMs() + kMessageMs);
}

template <typename T>
absl::StatusOr<T> VhostUserServer::Payload() const {
  const std::optional<T> value = message_.As<T>();
  if (!value.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("a payload of ", message_.header.size, " bytes in place of ", sizeof(T)));
  }
  return *value;
}

absl::StatusOr<VhostUserServer::Queue*> VhostUserServer::QueueOf(uint32_t index) {
  if (index >= queues_.size()) return absl::InvalidArgumentError(absl::StrCat("there is no queue ", index));
  return queues_[index].get();
}

absl::Status VhostUserServer::NeedFds(size_t count) const {
  if (message_.fd_count == count) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(message_.fd_count, " descriptors in place of ", count));
}

absl::Status VhostUserServer::Handle() {
  const auto request = static_cast<vu::Request>(message_.header.request);
  switch (request) {
    case vu::Request::kSetMemTable:
    case vu::Request::kAddMemReg:
    case vu::Request::kRemMemReg: return HandleMemory(request);
    case vu::Request::kSetVringKick:
    case vu::Request::kSetVringCall:
    case vu::Request::kSetVringErr: return HandleVringFd(request);
    case vu::Request::kSetVringNum:
    case vu::Request::kSetVringAddr:
    case vu::Request::kSetVringBase:
    case vu::Request::kGetVringBase:
    case vu::Request::kSetVringEnable: return HandleVring(request);
    case vu::Request::kGetConfig:
    case vu::Request::kSetConfig: return HandleConfig(request);
    case vu::Request::kGetInflightFd: return GetInflight();
    case vu::Request::kSetInflightFd: return SetInflight();
    default: break;
  }
  RETURN_IF_ERROR(NeedFds(request == vu::Request::kSetBackendReqFd ? 1 : 0));
  switch (request) {
    case vu::Request::kGetFeatures: return Reply(offered());
    case vu::Request::kSetFeatures: {
      ASSIGN_OR_RETURN(const uint64_t features, Payload<uint64_t>());
      if ((features & ~offered()) != 0) {
        return absl::InvalidArgumentError(absl::StrCat("features 0x", absl::Hex(features & ~offered()), " were not offered"));
      }
      features_ = features;
      device_.OnFeatures(features);
      return absl::OkStatus();
    }
    case vu::Request::kGetProtocolFeatures: return Reply(kProtocolFeatures);
    case vu::Request::kSetProtocolFeatures: {
      ASSIGN_OR_RETURN(const uint64_t features, Payload<uint64_t>());
      if ((features & ~kProtocolFeatures) != 0) return absl::InvalidArgumentError("protocol features that were not offered");
      protocol_features_ = features;
      return absl::OkStatus();
    }
    case vu::Request::kGetQueueNum: return Reply(uint64_t{queues_.size()});
    case vu::Request::kSetOwner: return absl::OkStatus();
    case vu::Request::kSetBackendReqFd: requests_.emplace(std::move(message_.fds[0])); return absl::OkStatus();
    case vu::Request::kResetOwner:
    case vu::Request::kResetDevice: StopAll(); return absl::OkStatus();
    case vu::Request::kGetMaxMemSlots: return Reply(uint64_t{BackendMemory::kMaxRegions});
    case vu::Request::kSetStatus: {
      ASSIGN_OR_RETURN(status_, Payload<uint64_t>());
      if (status_ == 0) StopAll();
      return absl::OkStatus();
    }
    case vu::Request::kGetStatus: return Reply(status_);
    default: return absl::InvalidArgumentError("it is not known here");
  }
}

absl::Status VhostUserServer::HandleMemory(vu::Request request) {
  // A front end changes the table also while queues run: their rings are looked up again in what is there now.
  std::vector<uint16_t> running;
  for (uint16_t i = 0; i < queues_.size(); ++i) {
    if (!queues_[i]->ring.running()) continue;
    running.push_back(i);
    StopQueue(i);
  }
  RETURN_IF_ERROR(ChangeMemory(request));
  for (const uint16_t index : running) RETURN_IF_ERROR(StartQueue(index));
  return absl::OkStatus();
}

absl::Status VhostUserServer::ChangeMemory(vu::Request request) {
  if (request == vu::Request::kSetMemTable) {
    vu::MemoryTableHeader header;
    if (message_.header.size < sizeof(header)) return absl::InvalidArgumentError("no table");
    std::memcpy(&header, message_.bytes.data(), sizeof(header));
    std::array<vu::MemoryRegion, vu::kMaxRegions> regions;
    const size_t bytes = size_t{header.regions} * sizeof(vu::MemoryRegion);
    if (header.regions > regions.size() || message_.header.size != sizeof(header) + bytes) {
      return absl::InvalidArgumentError(absl::StrCat("a table of ", header.regions, " regions in ", message_.header.size, " bytes"));
    }
    RETURN_IF_ERROR(NeedFds(header.regions));
    if (bytes != 0) std::memcpy(regions.data(), message_.bytes.data() + sizeof(header), bytes);
    return memory_.Replace(std::span(regions).first(header.regions), std::span(message_.fds).first(header.regions));
  }
  ASSIGN_OR_RETURN(const vu::SingleMemoryRegion single, Payload<vu::SingleMemoryRegion>());
  if (request == vu::Request::kRemMemReg) return memory_.Remove(single.region);  // some send a descriptor along
  RETURN_IF_ERROR(NeedFds(1));
  return memory_.Add(single.region, message_.fds[0].get());
}

absl::Status VhostUserServer::HandleVring(vu::Request request) {
  RETURN_IF_ERROR(NeedFds(0));
  if (request == vu::Request::kSetVringAddr) {
    ASSIGN_OR_RETURN(const vu::VringAddr addresses, Payload<vu::VringAddr>());
    ASSIGN_OR_RETURN(Queue* const queue, QueueOf(addresses.index));
    if (queue->ring.running()) return absl::FailedPreconditionError("the queue is running");
    queue->addresses = addresses;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const vu::VringState state, Payload<vu::VringState>());
  ASSIGN_OR_RETURN(Queue* const queue, QueueOf(state.index));
  const auto index = static_cast<uint16_t>(state.index);
  switch (request) {
    case vu::Request::kSetVringNum:
      if (state.num == 0 || state.num > v::kMaxQueueSize || !std::has_single_bit(state.num) || queue->ring.running()) {
        return absl::InvalidArgumentError(absl::StrCat("a queue of ", state.num, " entries, now"));
      }
      queue->size = static_cast<uint16_t>(state.num);
      return absl::OkStatus();
    case vu::Request::kSetVringBase:
      // A packed ring's has both offsets; a split ring's one index.
      if ((state.num > 0xffff && (features_ & v::kFeatureRingPacked) == 0) || queue->ring.running()) return absl::InvalidArgumentError(absl::StrCat("a base of ", state.num, ", now"));
      queue->base = state.num;
      return absl::OkStatus();
    case vu::Request::kGetVringBase:
      StopQueue(index);
      // Started again only by a new kick descriptor.
      if (queue->kick.fd() >= 0) loop_.Unwatch(queue->kick.fd());
      queue->kick = EventFd(OwnedFd());
      return Reply(vu::VringState{state.index, queue->base});
    default:  // kSetVringEnable
      queue->enabled = state.num != 0;
      if (queue->enabled) return StartQueue(index);
      StopQueue(index);
      return absl::OkStatus();
  }
}

absl::Status VhostUserServer::HandleVringFd(vu::Request request) {
  ASSIGN_OR_RETURN(const uint64_t value, Payload<uint64_t>());
  const bool has_fd = (value & vu::kVringNoFd) == 0;
  RETURN_IF_ERROR(NeedFds(has_fd ? 1 : 0));
  ASSIGN_OR_RETURN(Queue* const queue, QueueOf(static_cast<uint32_t>(value & vu::kVringIndexMask)));
  const auto index = static_cast<uint16_t>(value & vu::kVringIndexMask);
  EventFd event(has_fd ? std::move(message_.fds[0]) : OwnedFd());
  if (request == vu::Request::kSetVringErr) {
    queue->error = std::move(event);
    return absl::OkStatus();
  }
  if (request == vu::Request::kSetVringCall) {
    // The ring holds its address, not its number: it may change while the queue runs.
    queue->call = std::move(event);
    return absl::OkStatus();
  }
  if (!has_fd) return absl::InvalidArgumentError("a queue without kicks would have to be polled");
  if (queue->kick.fd() >= 0) loop_.Unwatch(queue->kick.fd());
  queue->kick = std::move(event);
  // Edges: each signal is one, so that nobody has to read the counter. Refused for a file, which is always ready.
  RETURN_IF_ERROR(loop_.Watch(queue->kick.fd(), EPOLLIN | EPOLLET, [this, index](uint32_t) { Process(index); }));
  return StartQueue(index);
}

absl::Status VhostUserServer::HandleConfig(vu::Request request) {
  RETURN_IF_ERROR(NeedFds(0));
  vu::ConfigHeader header;
  if (message_.header.size < sizeof(header)) return absl::InvalidArgumentError("no configuration header");
  std::memcpy(&header, message_.bytes.data(), sizeof(header));
  if (header.size > vu::kMaxConfigBytes || header.offset > vu::kMaxConfigBytes - header.size ||
      message_.header.size != sizeof(header) + header.size) {
    return absl::InvalidArgumentError(absl::StrCat(header.size, " bytes of configuration at ", header.offset));
  }
  if (request == vu::Request::kSetConfig) {
    // A field that is not the driver's keeps its value, as the specification wants it.
    (void)device_.WriteConfig(header.offset, message_.payload().subspan(sizeof(header)));
    return absl::OkStatus();
  }
  std::array<std::byte, sizeof(header) + vu::kMaxConfigBytes> reply{};
  std::memcpy(reply.data(), &header, sizeof(header));
  const std::span<const std::byte> config = device_.config();
  for (uint32_t i = 0; i < header.size; ++i) {
    if (header.offset + i < config.size()) reply[sizeof(header) + i] = config[header.offset + i];
  }
  return channel_.Send(message_.header.request, vu::kFlagReply, std::span(reply).first(sizeof(header) + header.size), {},
                       VhostUserChannel::NowMs() + kMessageMs);
}

// ---- The in-flight region

VhostUserServer::Mapping::~Mapping() {
  if (start != nullptr) ::munmap(start, bytes);
}

bool VhostUserServer::AnyRuns() const {
  return std::any_of(queues_.begin(), queues_.end(), [](const auto& queue) { return queue->ring.running(); });
}

absl::Status VhostUserServer::GetInflight() {
  RETURN_IF_ERROR(NeedFds(0));
  ASSIGN_OR_RETURN(vu::Inflight inflight, InflightPayload());
  if (inflight.queues == 0 || inflight.queues > queues_.size() || inflight.queue_size == 0 || inflight.queue_size > v::kMaxQueueSize || AnyRuns()) {
    return absl::InvalidArgumentError(absl::StrCat("an in-flight region for ", inflight.queues, " queues of ", inflight.queue_size, ", now"));
  }
  inflight.mmap_size = vu::InflightStride(inflight.queue_size) * inflight.queues;
  inflight.mmap_offset = 0;
  // What an earlier run has left there is nobody's.
  Mapping mapping;
  void* const start = ::mmap(nullptr, inflight.mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, inflight_fd_.get(), 0);
  if (start == MAP_FAILED) return ErrnoStatus(errno, "map the in-flight region");
  mapping.start = start;
  mapping.bytes = inflight.mmap_size;
  std::memset(start, 0, inflight.mmap_size);
  const int fds[] = {inflight_fd_.get()};
  return channel_.Send(message_.header.request, vu::kFlagReply, std::as_bytes(std::span(&inflight, 1)), fds,
                       VhostUserChannel::NowMs() + kMessageMs);
}

absl::Status VhostUserServer::SetInflight() {
  RETURN_IF_ERROR(NeedFds(1));
  ASSIGN_OR_RETURN(const vu::Inflight inflight, InflightPayload());
  const uint64_t stride = vu::InflightStride(inflight.queue_size);
  if (inflight.queues == 0 || inflight.queues > queues_.size() || inflight.queue_size == 0 || inflight.queue_size > v::kMaxQueueSize ||
      inflight.mmap_size < stride * inflight.queues || inflight.mmap_size > InflightBytes(inflight.queues) || inflight.mmap_offset % 64 != 0 ||
      inflight.mmap_offset > kMaxInflightOffset || AnyRuns()) {
    return absl::InvalidArgumentError(absl::StrCat("an in-flight region of ", inflight.mmap_size, " bytes at ", inflight.mmap_offset, " for ",
                                                   inflight.queues, " queues of ", inflight.queue_size, ", now"));
  }
  struct stat about {};
  if (::fstat(message_.fds[0].get(), &about) != 0) return ErrnoStatus(errno, "examine the in-flight region");
  if (!S_ISREG(about.st_mode) || inflight.mmap_offset + inflight.mmap_size > static_cast<uint64_t>(about.st_size)) {
    return absl::InvalidArgumentError(absl::StrCat("an in-flight region of ", inflight.mmap_size, " bytes in a file of ", about.st_size));
  }
  const uint64_t skipped = inflight.mmap_offset % 4096;
  auto mapping = std::make_unique<Mapping>();
  void* const start = ::mmap(nullptr, inflight.mmap_size + skipped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, message_.fds[0].get(),
                             static_cast<off_t>(inflight.mmap_offset - skipped));
  if (start == MAP_FAILED) return ErrnoStatus(errno, "map the in-flight region");
  mapping->start = start;
  mapping->bytes = inflight.mmap_size + skipped;
  inflight_ = std::move(mapping);
  inflight_offset_ = skipped;
  inflight_queues_ = inflight.queues;
  inflight_queue_size_ = inflight.queue_size;
  return absl::OkStatus();
}

absl::StatusOr<vu::Inflight> VhostUserServer::InflightPayload() const {
  // Some send it without the padding at the end.
  constexpr size_t kLeast = offsetof(vu::Inflight, padding);
  if (message_.header.size < kLeast || message_.header.size > sizeof(vu::Inflight)) {
    return absl::InvalidArgumentError(absl::StrCat("a payload of ", message_.header.size, " bytes in place of ", sizeof(vu::Inflight)));
  }
  vu::Inflight inflight{};
  std::memcpy(&inflight, message_.bytes.data(), message_.header.size);
  return inflight;
}

// ---- Queues

// Once all of it is there: size, addresses, kick, and the enabling.
absl::Status VhostUserServer::StartQueue(uint16_t index) {
  Queue& queue = *queues_[index];
  // A front end without protocol features enables nothing: the kick descriptor is what starts a queue there.
  const bool enabled = queue.enabled || (features_ & vu::kFeatureProtocolFeatures) == 0;
  if (queue.ring.running() || !enabled || queue.size == 0 || !queue.addresses.has_value() || queue.kick.fd() < 0) return absl::OkStatus();
  const vu::VringAddr& at = *queue.addresses;
  BackendQueue::Rings rings;
  rings.size = queue.size;
  rings.descriptors = memory_.FindUser(at.descriptors, v::DescriptorBytes(queue.size));
  const bool packed = (features_ & v::kFeatureRingPacked) != 0;
  rings.available = memory_.FindUser(at.available, packed ? sizeof(uint32_t) : v::AvailBytes(queue.size));
  rings.used = memory_.FindUser(at.used, packed ? sizeof(uint32_t) : v::UsedBytes(queue.size));
  if (rings.descriptors == nullptr || rings.available == nullptr || rings.used == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the rings of queue ", index, " are not in the memory that was given"));
  }
  const auto aligned = [](const std::byte* host, uintptr_t to) { return reinterpret_cast<uintptr_t>(host) % to == 0; };
  if (!aligned(rings.descriptors, 16) || !aligned(rings.available, packed ? 4 : 2) || !aligned(rings.used, 4)) {
    return absl::InvalidArgumentError(absl::StrCat("the rings of queue ", index, " are not aligned"));
  }
  std::span<std::byte> inflight;
  if (inflight_ != nullptr && index < inflight_queues_) {
    if (queue.size > inflight_queue_size_) {
      return absl::InvalidArgumentError(absl::StrCat("queue ", index, " of ", queue.size, " entries, in an in-flight region for ", inflight_queue_size_));
    }
    const uint64_t stride = vu::InflightStride(inflight_queue_size_);
    inflight = {static_cast<std::byte*>(inflight_->start) + inflight_offset_ + stride * index, stride};
  }
  queue.ring.Start(rings, queue.base, features_, memory_, &queue.call, inflight);
  queue.told = false;
  Process(index);  // what came before
  return absl::OkStatus();
}

void VhostUserServer::StopQueue(uint16_t index) {
  Queue& queue = *queues_[index];
  if (!queue.ring.running()) return;
  device_.OnQueueStopped(index);
  // Of what was completed only now; a queue that starts again does not know of it.
  queue.ring.Notify();
  queue.base = queue.ring.Stop();
}

void VhostUserServer::StopAll() {
  for (uint16_t i = 0; i < queues_.size(); ++i) {
    StopQueue(i);
    queues_[i]->enabled = false;
  }
  device_.OnReset();
}

void VhostUserServer::Wake(uint16_t index) { Process(index); }

void VhostUserServer::Process(uint16_t index) {
  Queue& queue = *queues_[index];
  if (!queue.ring.running()) return;
  // Its own kick: the other queues and the front end come first.
  if (device_.Process(index, queue.ring)) queue.kick.Signal();
  queue.ring.Notify();
  if (queue.ring.fault() != BackendQueue::Fault::kNone && !std::exchange(queue.told, true)) {
    // Who sees the signal finds it told.
    callbacks_.on_fault(index, queue.ring.fault());
    if (queue.error.fd() >= 0) queue.error.Signal();
  }
}

void VhostUserServer::ConfigChanged() {
  if (!requests_.has_value()) return;
  // A front end that does not read is not waited for: it learns of the change with the next one.
  (void)requests_->Send(static_cast<uint32_t>(vu::BackendRequest::kConfigChange), 0, {}, {}, VhostUserChannel::NowMs());
}

}  // namespace vmm
