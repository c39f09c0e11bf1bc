#include "devices/virtio/vhost_user/vhost_user_frontend.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
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

constexpr uint64_t kProtocolFeatures = vu::kProtocolMq | vu::kProtocolReplyAck | vu::kProtocolBackendReq | vu::kProtocolConfig |
                                       vu::kProtocolInflightShmfd | vu::kProtocolResetDevice | vu::kProtocolStatus;
// Bits that are the transport's business, or legacy's, or vhost's own: never passed through. Device types' own bits are 0 to 23 and
// from 50 on.
constexpr uint64_t kPassedFeatures = 0x00ff'ffffu | v::kFeatureIndirectDesc | v::kFeatureEventIdx | v::kFeatureVersion1 |
                                     v::kFeatureRingPacked | ~((uint64_t{1} << 50) - 1);
constexpr uint32_t kMaxBackendRequestsPerSecond = 200;
constexpr uint64_t kMaxInflightBytes = 16u << 20;
// A packed ring starts with both wrap counters set.
constexpr uint32_t kPackedBase = 1u << 31 | 1u << 15;

}  // namespace

absl::StatusOr<std::unique_ptr<VhostUserFrontend>> VhostUserFrontend::Create(EventLoop& loop, const GuestMemory& memory,
                                                                             VhostUserFrontendOptions options,
                                                                             std::function<void(const absl::Status&)> on_lost) {
  if (options.queues == 0 || options.queues > 255 || options.memory.empty() || options.memory.size() > vu::kMaxRegions ||
      options.config_bytes > vu::kMaxConfigBytes || (!options.own_config.empty() && options.own_config.size() != options.config_bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("make front end of device '", options.name, "': ", options.queues, " queues, ",
                                                   options.memory.size(), " memory regions, ", options.config_bytes,
                                                   " bytes of configuration are beyond the protocol"));
  }
  std::unique_ptr<VhostUserFrontend> frontend(new VhostUserFrontend(loop, memory, std::move(options), std::move(on_lost)));
  ASSIGN_OR_RETURN(frontend->error_, EventFd::Create());
  for (uint16_t i = 0; i < frontend->options_.queues; ++i) {
    Queue queue;
    ASSIGN_OR_RETURN(queue.kick, EventFd::Create());
    ASSIGN_OR_RETURN(queue.call, EventFd::Create());
    frontend->queues_.push_back(std::move(queue));
  }
  return frontend;
}

VhostUserFrontend::~VhostUserFrontend() { Close(); }

absl::Status VhostUserFrontend::Explain(const absl::Status& status) const {
  return absl::Status(status.code(), absl::StrCat("device '", options_.name, "': ", status.message()));
}

// ---- Messages

void VhostUserFrontend::BeginCallLocked() { call_deadline_ms_ = VhostUserChannel::NowMs() + options_.deadline_ms; }

template <typename T>
absl::Status VhostUserFrontend::SendLocked(vu::Request request, const T& payload, std::span<const int> fds, uint32_t flags) {
  if (!channel_.has_value()) return absl::UnavailableError("no backend is connected");
  return channel_->Send(static_cast<uint32_t>(request), flags, std::as_bytes(std::span(&payload, 1)), fds, call_deadline_ms_);
}

absl::Status VhostUserFrontend::SendEmptyLocked(vu::Request request) {
  if (!channel_.has_value()) return absl::UnavailableError("no backend is connected");
  return channel_->Send(static_cast<uint32_t>(request), 0, {}, {}, call_deadline_ms_);
}

absl::Status VhostUserFrontend::AwaitReplyLocked(vu::Request request, size_t fds) {
  RETURN_IF_ERROR(channel_->Receive(reply_, call_deadline_ms_));
  if (reply_.header.request != static_cast<uint32_t>(request) || (reply_.header.flags & vu::kFlagReply) == 0 || reply_.fd_count != fds) {
    return absl::InvalidArgumentError(absl::StrCat("its backend answered request ", static_cast<uint32_t>(request), " by ",
                                                   reply_.header.request, " with ", reply_.fd_count, " descriptors"));
  }
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<T> VhostUserFrontend::GetLocked(vu::Request request) {
  RETURN_IF_ERROR(AwaitReplyLocked(request));
  const std::optional<T> value = reply_.As<T>();
  if (!value.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("its backend answered request ", static_cast<uint32_t>(request), " by ",
                                                   reply_.header.size, " bytes in place of ", sizeof(T)));
  }
  return *value;
}

absl::Status VhostUserFrontend::SyncLocked() {
  // Any request with an answer does: messages are taken in order.
  RETURN_IF_ERROR(SendEmptyLocked(vu::Request::kGetFeatures));
  return GetLocked<uint64_t>(vu::Request::kGetFeatures).status();
}

absl::Status VhostUserFrontend::SetStatusLocked(uint8_t status) {
  if ((protocol_features_ & vu::kProtocolStatus) == 0) return absl::OkStatus();
  return SendLocked(vu::Request::kSetStatus, uint64_t{status});
}

// ---- Connecting

absl::Status VhostUserFrontend::Connect(OwnedFd socket) {
  UnwatchConnection();
  OwnedFd requests;
  {
    MutexLock lock(mutex_);
    if (detached_) return absl::FailedPreconditionError("the device has been given up");
    channel_.emplace(std::move(socket));
    ++generation_;
    BeginCallLocked();
    absl::Status status = HandshakeLocked();
    if (status.ok()) status = OpenBackendRequestsLocked(requests);
    if (status.ok()) status = SyncLocked();
    if (status.ok() && started_) status = RunLocked(/*resume=*/ran_);
    if (!status.ok()) {
      channel_.reset();
      return Explain(status);
    }
    settled_ = true;
  }
  backend_requests_ = std::move(requests);
  return WatchConnection();
}

absl::Status VhostUserFrontend::HandshakeLocked() {
  RETURN_IF_ERROR(SendEmptyLocked(vu::Request::kGetFeatures));
  ASSIGN_OR_RETURN(const uint64_t offered, GetLocked<uint64_t>(vu::Request::kGetFeatures));
  if ((offered & v::kFeatureVersion1) == 0) return absl::FailedPreconditionError("its backend does not offer VIRTIO_F_VERSION_1");
  if ((offered & vu::kFeatureProtocolFeatures) == 0) {
    return absl::FailedPreconditionError("its backend does not offer VHOST_USER_F_PROTOCOL_FEATURES");
  }
  RETURN_IF_ERROR(SendEmptyLocked(vu::Request::kGetProtocolFeatures));
  ASSIGN_OR_RETURN(const uint64_t protocol, GetLocked<uint64_t>(vu::Request::kGetProtocolFeatures));
  const bool own_config = !options_.own_config.empty();
  const uint64_t wanted = protocol & kProtocolFeatures & ~(own_config ? vu::kProtocolConfig : 0);
  if (options_.config_bytes != 0 && !own_config && (wanted & vu::kProtocolConfig) == 0) {
    return absl::FailedPreconditionError("its backend has no configuration space (VHOST_USER_PROTOCOL_F_CONFIG)");
  }
  const uint64_t device_features = (offered & kPassedFeatures & ~options_.withheld_features) | options_.own_features | v::kFeatureRingReset;
  if (settled_) {
    if ((features_ & ~device_features) != 0) {
      return absl::FailedPreconditionError(absl::StrCat("its new backend lacks the features 0x", absl::Hex(features_ & ~device_features)));
    }
    if ((protocol_features_ & ~wanted) != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("its new backend lacks the protocol features 0x", absl::Hex(protocol_features_ & ~wanted)));
    }
  } else {
    features_ = device_features;
    protocol_features_ = wanted;
  }
  backend_features_ = offered;
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetProtocolFeatures, protocol_features_));
  if ((protocol_features_ & vu::kProtocolMq) != 0) {
    RETURN_IF_ERROR(SendEmptyLocked(vu::Request::kGetQueueNum));
    ASSIGN_OR_RETURN(const uint64_t queues, GetLocked<uint64_t>(vu::Request::kGetQueueNum));
    // Some network backends count pairs; one pair they all have.
    const bool one_pair = options_.device_id == v::DeviceId::kNet && options_.queues == 2 && queues != 0;
    if (queues < options_.queues && !one_pair) {
      return absl::FailedPreconditionError(absl::StrCat("its backend has ", queues, " queues, ", options_.queues, " are wanted"));
    }
  }
  RETURN_IF_ERROR(SendEmptyLocked(vu::Request::kSetOwner));
  if (own_config) {
    config_ = options_.own_config;
  } else if (options_.config_bytes != 0) {
    RETURN_IF_ERROR(FetchConfigLocked());
  }
  return SendMemoryLocked();
}

absl::Status VhostUserFrontend::SendMemoryLocked() {
  struct {
    vu::MemoryTableHeader header;
    std::array<vu::MemoryRegion, vu::kMaxRegions> regions;
  } table{};
  table.header.regions = static_cast<uint32_t>(options_.memory.size());
  std::vector<int> fds;
  for (size_t i = 0; i < options_.memory.size(); ++i) {
    const VhostUserMemory& from = options_.memory[i];
    // Rings are named by the front end's addresses: ours are the guest's.
    table.regions[i] = {from.gpa.raw(), from.bytes, from.gpa.raw(), from.fd_offset};
    fds.push_back(from.fd);
  }
  const size_t bytes = sizeof(table.header) + options_.memory.size() * sizeof(vu::MemoryRegion);
  const bool acknowledged = (protocol_features_ & vu::kProtocolReplyAck) != 0;
  RETURN_IF_ERROR(channel_->Send(static_cast<uint32_t>(vu::Request::kSetMemTable), acknowledged ? vu::kFlagNeedReply : 0,
                                 std::as_bytes(std::span(&table, 1)).first(bytes), fds, call_deadline_ms_));
  if (!acknowledged) return absl::OkStatus();
  ASSIGN_OR_RETURN(const uint64_t result, GetLocked<uint64_t>(vu::Request::kSetMemTable));
  return result == 0 ? absl::OkStatus() : absl::FailedPreconditionError("its backend could not map guest memory");
}

absl::Status VhostUserFrontend::OpenBackendRequestsLocked(OwnedFd& ours) {
  if ((protocol_features_ & vu::kProtocolBackendReq) == 0) return absl::OkStatus();
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "create socket pair");
  ours.Reset(pair[0]);
  const OwnedFd theirs(pair[1]);
  const int fds[] = {theirs.get()};
  return channel_->Send(static_cast<uint32_t>(vu::Request::kSetBackendReqFd), 0, {}, fds, call_deadline_ms_);
}

absl::Status VhostUserFrontend::FetchConfigLocked() {
  std::array<std::byte, sizeof(vu::ConfigHeader) + vu::kMaxConfigBytes> bytes{};
  const vu::ConfigHeader header{0, options_.config_bytes, 0};
  std::memcpy(bytes.data(), &header, sizeof(header));
  const size_t size = sizeof(header) + options_.config_bytes;
  RETURN_IF_ERROR(channel_->Send(static_cast<uint32_t>(vu::Request::kGetConfig), 0, std::span(bytes).first(size), {}, call_deadline_ms_));
  RETURN_IF_ERROR(AwaitReplyLocked(vu::Request::kGetConfig));
  if (reply_.header.size != size) {
    return absl::InvalidArgumentError(absl::StrCat("its backend answered ", reply_.header.size, " bytes of configuration in place of ", size));
  }
  const auto content = reply_.payload().subspan(sizeof(header));
  config_.assign(content.begin(), content.end());
  return absl::OkStatus();
}

absl::Status VhostUserFrontend::WatchConnection() {
  int fd = -1;
  {
    MutexLock lock(mutex_);
    if (!channel_.has_value()) return absl::OkStatus();  // lost by a VP thread meanwhile: on_lost is on its way
    fd = channel_->fd();
  }
  // Only its end: replies are for whoever asked.
  RETURN_IF_ERROR(loop_.Watch(fd, EPOLLRDHUP, [this](uint32_t) { OnHangUp(); }));
  watched_ = fd;
  RETURN_IF_ERROR(loop_.Watch(error_.fd(), EPOLLIN, [this](uint32_t) { OnQueueFault(); }));
  if (backend_requests_.valid()) {
    RETURN_IF_ERROR(loop_.Watch(backend_requests_.get(), EPOLLIN, [this](uint32_t) { OnBackendRequest(); }));
  }
  return absl::OkStatus();
}

void VhostUserFrontend::UnwatchConnection() {
  if (watched_ >= 0) {
    loop_.Unwatch(std::exchange(watched_, -1));
    loop_.Unwatch(error_.fd());
  }
  if (backend_requests_.valid()) {
    loop_.Unwatch(backend_requests_.get());
    backend_requests_.Reset();
  }
}

void VhostUserFrontend::OnHangUp() {
  MutexLock lock(mutex_);
  if (channel_.has_value()) LoseLocked(absl::UnavailableError("its backend closed the connection"));
}

void VhostUserFrontend::LoseLocked(const absl::Status& why) {
  if (!channel_.has_value()) return;
  // The descriptor stays open until the loop has stopped watching it: its number must not become another's meanwhile.
  ::shutdown(channel_->fd(), SHUT_RDWR);
  loop_.Post([alive = std::weak_ptr<VhostUserFrontend*>(alive_), why = Explain(why), generation = generation_,
              channel = std::make_shared<VhostUserChannel>(*std::move(channel_))] {
    const auto frontend = alive.lock();
    if (frontend == nullptr) return;
    VhostUserFrontend& self = **frontend;
    {
      MutexLock lock(self.mutex_);
      if (self.generation_ != generation) return;
    }
    self.UnwatchConnection();
    if (self.on_lost_) self.on_lost_(why);
  });
  channel_.reset();
}

bool VhostUserFrontend::AdmitFromBackend(int64_t now_ms) {
  if (now_ms - request_window_ms_ >= 1000) {
    request_window_ms_ = now_ms;
    requests_in_window_ = 0;
  }
  return ++requests_in_window_ <= kMaxBackendRequestsPerSecond;
}

void VhostUserFrontend::OnQueueFault() {
  error_.Drain();
  if (!AdmitFromBackend(VhostUserChannel::NowMs())) {
    MutexLock lock(mutex_);
    return LoseLocked(absl::ResourceExhaustedError("its backend floods us with errors"));
  }
  queue_faults_.fetch_add(1, std::memory_order_relaxed);
  if (VirtioEvents* const events = events_.load()) events->OnNeedsReset();
}

void VhostUserFrontend::OnBackendRequest() {
  bool changed = false;
  VhostUserChannel requests{OwnedFd(backend_requests_.Release())};
  VhostUserMessage message;
  // What is there now, and bounded: the rest is for the next turn.
  absl::Status status = requests.Receive(message, VhostUserChannel::NowMs());
  backend_requests_ = requests.Take();
  if (status.ok()) {
    if (!AdmitFromBackend(VhostUserChannel::NowMs())) {
      status = absl::ResourceExhaustedError("its backend floods us with requests");
    } else if (message.header.request != static_cast<uint32_t>(vu::BackendRequest::kConfigChange) || message.fd_count != 0) {
      status = absl::InvalidArgumentError(absl::StrCat("its backend sent request ", message.header.request, ", which it was not granted"));
    } else {
      changed = true;
    }
  }
  {
    MutexLock lock(mutex_);
    BeginCallLocked();
    if (status.ok() && changed && channel_.has_value() && options_.config_bytes != 0 && options_.own_config.empty()) status = FetchConfigLocked();
    if (!status.ok()) {
      // Closed at its own end only: no more requests, and no error while the connection itself stands.
      if (absl::IsUnavailable(status)) {
        loop_.Unwatch(backend_requests_.get());
        backend_requests_.Reset();
        return;
      }
      if (absl::IsDeadlineExceeded(status) && !changed) return;  // half a message, or none
      return LoseLocked(status);
    }
  }
  if (VirtioEvents* const events = events_.load(); changed && events != nullptr) events->OnConfigChanged();
}

void VhostUserFrontend::Detach() {
  UnwatchConnection();
  {
    MutexLock lock(mutex_);
    detached_ = true;
    ++generation_;
    channel_.reset();
  }
  if (VirtioEvents* const events = events_.load()) events->OnNeedsReset();
}

void VhostUserFrontend::Close() {
  UnwatchConnection();
  MutexLock lock(mutex_);
  detached_ = true;
  ++generation_;
  channel_.reset();
}

// ---- The transport's calls

void VhostUserFrontend::ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept {
  MutexLock lock(mutex_);
  for (size_t i = 0; i < data.size(); ++i) {
    if (uint64_t{offset} + i < config_.size()) data[i] = config_[offset + i];
  }
}

void VhostUserFrontend::WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept {
  MutexLock lock(mutex_);
  if (!channel_.has_value() || !options_.own_config.empty() || offset > config_.size() || data.size() > config_.size() - offset) return;
  std::array<std::byte, sizeof(vu::ConfigHeader) + sizeof(uint64_t)> bytes;
  if (data.size() > sizeof(uint64_t)) return;
  const vu::ConfigHeader header{offset, static_cast<uint32_t>(data.size()), 0};
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), data.data(), data.size());
  BeginCallLocked();
  absl::Status status = channel_->Send(static_cast<uint32_t>(vu::Request::kSetConfig), 0,
                                       std::span(bytes).first(sizeof(header) + data.size()), {}, call_deadline_ms_);
  if (status.ok()) status = FetchConfigLocked();
  if (!status.ok()) LoseLocked(status);
}

bool VhostUserFrontend::IsGiven(Gpa gpa, uint64_t bytes) const {
  return std::any_of(options_.memory.begin(), options_.memory.end(), [&](const VhostUserMemory& memory) {
    const uint64_t at = gpa - memory.gpa;  // wraps to something large below it
    return at < memory.bytes && bytes <= memory.bytes - at;
  });
}

bool VhostUserFrontend::RingsAreInMemory(uint64_t features, const VirtioQueueSetup& queue) const {
  const bool packed = (features & v::kFeatureRingPacked) != 0;
  // A packed ring's other two are structures of four bytes.
  return IsGiven(queue.descriptors, v::DescriptorBytes(queue.size)) && IsGiven(queue.driver, packed ? 4 : v::AvailBytes(queue.size)) &&
         IsGiven(queue.device, packed ? 4 : v::UsedBytes(queue.size));
}

bool VhostUserFrontend::Start(uint64_t features, std::span<const VirtioQueueSetup> queues) noexcept {
  MutexLock lock(mutex_);
  if (detached_) return false;
  for (const VirtioQueueSetup& setup : queues) {
    if (!RingsAreInMemory(features, setup)) return false;
  }
  started_ = true;
  ran_ = false;
  driver_features_ = features;
  inflight_fd_.Reset();
  for (Queue& queue : queues_) queue.setup.reset();
  for (const VirtioQueueSetup& setup : queues) queues_[setup.index].setup = setup;
  // Between two backends: the next one starts them.
  if (!channel_.has_value()) return true;
  BeginCallLocked();
  const absl::Status status = RunLocked(/*resume=*/false);
  if (!status.ok()) LoseLocked(status);
  return true;
}

absl::Status VhostUserFrontend::PrepareInflightLocked() {
  if ((protocol_features_ & vu::kProtocolInflightShmfd) == 0) return absl::OkStatus();
  vu::Inflight wanted{};
  wanted.queues = options_.queues;
  wanted.queue_size = options_.max_queue_size;
  if (!inflight_fd_.valid()) {
    RETURN_IF_ERROR(SendLocked(vu::Request::kGetInflightFd, wanted));
    RETURN_IF_ERROR(AwaitReplyLocked(vu::Request::kGetInflightFd, 1));
    // Some send it without the padding at the end.
    constexpr size_t kLeast = offsetof(vu::Inflight, padding);
    if (reply_.header.size < kLeast || reply_.header.size > sizeof(vu::Inflight)) {
      return absl::InvalidArgumentError("its backend described the in-flight region by a message of a wrong size");
    }
    vu::Inflight got{};
    std::memcpy(&got, reply_.bytes.data(), reply_.header.size);
    if (got.mmap_size == 0 || got.mmap_size > kMaxInflightBytes) {
      return absl::InvalidArgumentError(absl::StrCat("its backend wants an in-flight region of ", got.mmap_size, " bytes"));
    }
    // Never mapped here: kept, and handed to the next backend as it is.
    inflight_ = {got.mmap_size, got.mmap_offset, wanted.queues, wanted.queue_size, 0};
    inflight_fd_ = std::move(reply_.fds[0]);
    reply_.fd_count = 0;
  }
  const int fds[] = {inflight_fd_.get()};
  return SendLocked(vu::Request::kSetInflightFd, inflight_, fds);
}

absl::Status VhostUserFrontend::RunLocked(bool resume) {
  if (resume && (driver_features_ & v::kFeatureRingPacked) != 0 && !inflight_fd_.valid()) {
    return absl::FailedPreconditionError("a packed ring cannot be resumed by another backend without an in-flight region");
  }
  RETURN_IF_ERROR(SetStatusLocked(v::kStatusAcknowledge | v::kStatusDriver));
  const uint64_t features = (driver_features_ & backend_features_) | vu::kFeatureProtocolFeatures;
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetFeatures, features));
  RETURN_IF_ERROR(SetStatusLocked(v::kStatusAcknowledge | v::kStatusDriver | v::kStatusFeaturesOk));
  RETURN_IF_ERROR(PrepareInflightLocked());
  ran_ = true;
  for (const Queue& queue : queues_) {
    if (queue.setup.has_value()) RETURN_IF_ERROR(RunQueueLocked(*queue.setup, resume));
  }
  RETURN_IF_ERROR(SetStatusLocked(v::kStatusAcknowledge | v::kStatusDriver | v::kStatusFeaturesOk | v::kStatusDriverOk));
  RETURN_IF_ERROR(SyncLocked());
  if (resume) {
    // Either may have been lost with the old backend, and one too many harms nobody.
    for (Queue& queue : queues_) {
      if (!queue.setup.has_value()) continue;
      queue.kick.Signal();
      queue.call.Signal();
    }
  }
  return absl::OkStatus();
}

absl::Status VhostUserFrontend::RunQueueLocked(const VirtioQueueSetup& queue, bool resume) {
  const uint32_t index = queue.index;
  uint32_t base = (driver_features_ & v::kFeatureRingPacked) != 0 ? kPackedBase : 0;
  // A packed ring's position is nowhere but in the in-flight region, where a backend that resumes finds it.
  if (resume && (driver_features_ & v::kFeatureRingPacked) == 0) {
    // What the guest has been given back: requests behind it are to be done. The ring is the guest's, and so is the harm of a lie.
    uint16_t used = 0;
    if (!memory_.ReadObject(queue.device + v::kRingIndex, used)) {
      return absl::InvalidArgumentError(absl::StrCat("the used ring of queue ", index, " is not in RAM"));
    }
    base = used;
  }
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringNum, vu::VringState{index, queue.size}));
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringBase, vu::VringState{index, base}));
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringAddr,
                             vu::VringAddr{index, 0, queue.descriptors.raw(), queue.device.raw(), queue.driver.raw(), 0}));
  const int call[] = {queues_[index].call.fd()};
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringCall, uint64_t{index}, call));
  const int error[] = {error_.fd()};
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringErr, uint64_t{index}, error));
  const int kick[] = {queues_[index].kick.fd()};
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringKick, uint64_t{index}, kick));
  return SendLocked(vu::Request::kSetVringEnable, vu::VringState{index, 1});
}

absl::Status VhostUserFrontend::HaltQueueLocked(uint16_t queue) {
  RETURN_IF_ERROR(SendLocked(vu::Request::kSetVringEnable, vu::VringState{queue, 0}));
  RETURN_IF_ERROR(SendLocked(vu::Request::kGetVringBase, vu::VringState{queue, 0}));
  ASSIGN_OR_RETURN(const vu::VringState state, GetLocked<vu::VringState>(vu::Request::kGetVringBase));
  return state.index == queue ? absl::OkStatus() : absl::InvalidArgumentError("its backend stopped another queue than the one asked for");
}

bool VhostUserFrontend::StartQueue(const VirtioQueueSetup& queue) noexcept {
  MutexLock lock(mutex_);
  if (detached_ || !RingsAreInMemory(driver_features_, queue)) return false;
  queues_[queue.index].setup = queue;
  if (!channel_.has_value()) return true;
  BeginCallLocked();
  absl::Status status = RunQueueLocked(queue, /*resume=*/false);
  if (status.ok()) status = SyncLocked();
  if (!status.ok()) LoseLocked(status);
  return true;
}

bool VhostUserFrontend::StopQueue(uint16_t queue) noexcept {
  MutexLock lock(mutex_);
  queues_[queue].setup.reset();
  if (detached_) return false;
  // Between two backends: what the region says of this queue would be done again by the next one, in rings that are new by then.
  if (!channel_.has_value()) return !inflight_fd_.valid();
  BeginCallLocked();
  if (absl::Status status = HaltQueueLocked(queue); !status.ok()) LoseLocked(status);
  return true;
}

void VhostUserFrontend::Stop() noexcept {
  MutexLock lock(mutex_);
  if (!started_) return;
  started_ = false;
  BeginCallLocked();
  absl::Status status;
  for (uint16_t i = 0; i < queues_.size(); ++i) {
    if (!queues_[i].setup.has_value()) continue;
    queues_[i].setup.reset();
    if (channel_.has_value() && status.ok()) status = HaltQueueLocked(i);
  }
  inflight_fd_.Reset();
  if (!channel_.has_value()) return;
  if (status.ok() && (protocol_features_ & vu::kProtocolStatus) != 0) {
    status = SetStatusLocked(0);
  } else if (status.ok() && (protocol_features_ & vu::kProtocolResetDevice) != 0) {
    status = SendEmptyLocked(vu::Request::kResetDevice);
  }
  // One that does not stop must not go on writing to the guest: it is cut off, and its owner ends it.
  if (!status.ok()) LoseLocked(status);
}

}  // namespace vmm
