#include "devices/virtio/net/tap_wire.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/virtio/net/net_layout.h"

namespace vmm {
namespace {

namespace vn = virtio_net;

// Debian 12's headers are older.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;
constexpr short kTapFlags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

absl::StatusOr<ifreq> Describe(int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0) return ErrnoStatus(errno, absl::StrCat("ask descriptor ", fd, " for its TAP interface"));
  return request;
}

bool Attach(int fd, bool attached) {
  ifreq request{};
  request.ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
  return ::ioctl(fd, TUNSETQUEUE, &request) == 0;
}

// EINVAL: an interface that is there was made with the other choice of IFF_MULTI_QUEUE.
absl::StatusOr<OwnedFd> OpenQueue(const std::string& name, bool multi_queue) {
  OwnedFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, "open /dev/net/tun");
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = static_cast<short>(kTapFlags | (multi_queue ? IFF_MULTI_QUEUE : 0));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    const int error = errno;
    return ErrnoStatus(error, absl::StrCat("open TAP interface '", name, "'",
                                           error == EBUSY    ? " (somebody else uses it)"
                                           : error == EPERM  ? " (making one, or using one of another user, needs CAP_NET_ADMIN)"
                                           : error == EINVAL ? " (it is there, with other flags)"
                                                             : ""));
  }
  return fd;
}

absl::Status DetachAllButFirst(std::span<const int> fds) {
  for (const int fd : fds.subspan(1)) {
    ASSIGN_OR_RETURN(const ifreq about, Describe(fd));
    if ((about.ifr_flags & IFF_DETACH_QUEUE) == 0 && !Attach(fd, false)) return ErrnoStatus(errno, "detach a queue of a TAP interface");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<OwnedFd>> OpenTap(const std::string& name, uint16_t pairs) {
  if (name.empty() || name.size() >= IFNAMSIZ || name.find('%') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("open TAP interface '", name, "': not an interface's name"));
  }
  std::vector<OwnedFd> fds;
  std::vector<int> borrowed;
  for (uint16_t pair = 0; pair < pairs; ++pair) {
    auto fd = OpenQueue(name, pairs > 1);
    if (!fd.ok() && pairs == 1 && absl::IsInvalidArgument(fd.status())) fd = OpenQueue(name, true);
    RETURN_IF_ERROR(fd.status());
    borrowed.push_back(fd->get());
    fds.push_back(*std::move(fd));
  }
  RETURN_IF_ERROR(DetachAllButFirst(borrowed));
  return fds;
}

absl::Status CheckTap(std::span<const int> fds) {
  std::string name;
  for (const int fd : fds) {
    ASSIGN_OR_RETURN(const ifreq about, Describe(fd));
    if (!name.empty() && name != about.ifr_name) {
      return absl::InvalidArgumentError(absl::StrCat("use descriptor ", fd, ": it is interface '", about.ifr_name, "', the first is '", name, "'"));
    }
    name = about.ifr_name;
    if ((about.ifr_flags & kTapFlags) != kTapFlags) {
      return absl::InvalidArgumentError(absl::StrCat("use descriptor ", fd, ": interface '", name,
                                                     "' was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"));
    }
    if (fds.size() > 1 && (about.ifr_flags & IFF_MULTI_QUEUE) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("use descriptor ", fd, ": interface '", name, "' was not opened with IFF_MULTI_QUEUE"));
    }
  }
  return DetachAllButFirst(fds);
}

absl::StatusOr<std::unique_ptr<TapWire>> TapWire::Create(EventLoop& loop, std::vector<int> fds, std::function<void()> on_gone) {
  std::unique_ptr<TapWire> wire(new TapWire(loop, std::move(on_gone)));
  for (const int fd : fds) {
    ASSIGN_OR_RETURN(const ifreq about, Describe(fd));
    if ((about.ifr_flags & kTapFlags) != kTapFlags) return absl::InvalidArgumentError(absl::StrCat("descriptor ", fd, " is not a TAP interface's"));
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return ErrnoStatus(errno, "make the TAP interface non-blocking");
    wire->queues_.push_back({.fd = fd, .active = (about.ifr_flags & IFF_DETACH_QUEUE) == 0});
  }
  int header_bytes = sizeof(vn::Header);
  if (::ioctl(fds[0], TUNSETVNETHDRSZ, &header_bytes) != 0) return ErrnoStatus(errno, "set the header size of the TAP interface");
  constexpr unsigned kUsual = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO;
  wire->features_ = vn::kFeatureCsum | vn::kFeatureHostTso4 | vn::kFeatureHostTso6 | vn::kFeatureHostEcn | vn::kFeatureHostUfo;
  if (::ioctl(fds[0], TUNSETOFFLOAD, kUsual) == 0) {
    wire->features_ |= vn::kFeatureGuestCsum | vn::kFeatureGuestTso4 | vn::kFeatureGuestTso6 | vn::kFeatureGuestEcn | vn::kFeatureGuestUfo;
  }
  if (::ioctl(fds[0], TUNSETOFFLOAD, kUsual | kTunUso4 | kTunUso6) == 0) {
    wire->features_ |= vn::kFeatureHostUso | vn::kFeatureGuestUso4 | vn::kFeatureGuestUso6;
  }
  wire->SetOffloads(0);
  return wire;
}

TapWire::~TapWire() {
  for (const Queue& queue : queues_) {
    if (queue.watched) loop_.Unwatch(queue.fd);
  }
}

void TapWire::SetOffloads(uint64_t features) noexcept {
  unsigned flags = 0;
  const auto add = [&](uint64_t all, unsigned flag) {
    if ((features & all) == all) flags |= flag;
  };
  if ((features & vn::kFeatureGuestCsum) != 0) {
    flags = TUN_F_CSUM;
    add(vn::kFeatureGuestTso4, TUN_F_TSO4);
    add(vn::kFeatureGuestTso6, TUN_F_TSO6);
    if ((flags & (TUN_F_TSO4 | TUN_F_TSO6)) != 0) add(vn::kFeatureGuestEcn, TUN_F_TSO_ECN);
    add(vn::kFeatureGuestUfo, TUN_F_UFO);
    add(vn::kFeatureGuestUso4 | vn::kFeatureGuestUso6, kTunUso4 | kTunUso6);  // the kernel has them together
  }
  // Fails for an interface that is gone alone, which is told otherwise.
  (void)!::ioctl(queues_[0].fd, TUNSETOFFLOAD, flags);
}

void TapWire::SetActive(uint16_t pair, bool active) noexcept {
  Queue& queue = queues_[pair];
  if (queue.active != active && Attach(queue.fd, active)) queue.active = active;
}

NetWire::SendResult TapWire::Send(uint16_t pair, std::span<iovec> packet) noexcept {
  ssize_t done;
  do {
    done = ::writev(queues_[pair].fd, packet.data(), static_cast<int>(packet.size()));
  } while (done < 0 && errno == EINTR);
  if (done >= 0) return SendResult::kSent;
  return errno == EAGAIN ? SendResult::kBusy : SendResult::kRefused;
}

size_t TapWire::Receive(uint16_t pair, std::span<iovec> room) noexcept {
  // The kernel says nothing of what it cut off: a byte behind the room is where it would show.
  std::byte behind;
  size_t bytes = 0;
  for (const iovec& vector : room) bytes += vector.iov_len;
  vectors_.assign(room.begin(), room.end());
  vectors_.push_back({&behind, 1});
  ssize_t got;
  do {
    got = ::readv(queues_[pair].fd, vectors_.data(), static_cast<int>(vectors_.size()));
  } while (got < 0 && errno == EINTR);
  // EINVAL: not even room for the header.
  if (got < 0) return errno == EINVAL ? bytes + 1 : 0;
  return static_cast<size_t>(got);
}

void TapWire::Want(uint16_t pair, bool input, bool output) noexcept {
  Queue& queue = queues_[pair];
  if (queue.wants_input == input && queue.wants_output == output) return;
  queue.wants_input = input;
  queue.wants_output = output;
  const uint32_t events = (input ? EPOLLIN : 0u) | (output ? EPOLLOUT : 0u);
  if (!queue.watched) {
    queue.watched = loop_.Watch(queue.fd, events, [this, pair](uint32_t came) { OnEvents(pair, came); }).ok();
  } else {
    (void)loop_.Rearm(queue.fd, events);
  }
}

void TapWire::OnEvents(uint16_t pair, uint32_t events) {
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    for (Queue& queue : queues_) {
      if (std::exchange(queue.watched, false)) loop_.Unwatch(queue.fd);
    }
    return on_gone_();
  }
  if ((events & EPOLLOUT) != 0) user_->OnWritable(pair);
  if ((events & EPOLLIN) != 0) user_->OnReadable(pair);
}

}  // namespace vmm
