// The guest's RAM: one sealed memfd. Who may use it gets the descriptor and maps it (GuestView).
//
// Threads  immutable after Create.
// Errors   Create: Status with errno; RESOURCE_EXHAUSTED where the host has not the pages asked for.
#ifndef VMM_MEMORY_GUEST_RAM_H_
#define VMM_MEMORY_GUEST_RAM_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

enum class HugePages : uint8_t { kNone, kTransparent, k2MiB, k1GiB };

struct GuestRamOptions {
  uint64_t bytes = 0;
  HugePages huge_pages = HugePages::kNone;
  bool prefault = false;  // back every page before the guest starts
  bool lock = false;      // mlock: never swapped, implies prefault
  bool mergeable = false; // let the host's same-page merging look at it (a side channel: off)
};

class GuestRam final {
 public:
  static absl::StatusOr<std::unique_ptr<GuestRam>> Create(const GuestRamOptions& options);
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;

  // Sealed against growing, shrinking and further seals: a mapping of it can never raise SIGBUS for its size.
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const GuestRamOptions& options() const { return options_; }

 private:
  GuestRam(OwnedFd fd, const GuestRamOptions& options) : fd_(std::move(fd)), options_(options) {}
  const OwnedFd fd_;
  const GuestRamOptions options_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_RAM_H_
