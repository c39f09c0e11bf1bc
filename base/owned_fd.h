// A file descriptor that closes itself.
//
// Threads  confined to its owner; get() may be handed out while the owner lives.
// Errors   close() failures are ignored: Linux has released the descriptor whatever it says.
#ifndef VMM_BASE_OWNED_FD_H_
#define VMM_BASE_OWNED_FD_H_

#include <unistd.h>

#include <utility>

namespace vmm {

class OwnedFd final {
 public:
  OwnedFd() = default;
  // Takes ownership; -1 is "none".
  explicit OwnedFd(int fd) noexcept : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;
  ~OwnedFd() { Reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int Release() noexcept { return std::exchange(fd_, -1); }
  void Reset(int fd = -1) noexcept {
    if (const int old = std::exchange(fd_, fd); old >= 0) ::close(old);
  }

 private:
  int fd_ = -1;
};

}  // namespace vmm

#endif  // VMM_BASE_OWNED_FD_H_
