// The guest's RAM: a sealed memfd, and another one for what is reserved from devices. Who may use RAM gets descriptors and maps them.
//
// Shapes   RAM is counted from 0 without gaps (RamRange::ram_offset), and cut into pieces, each a part of one file.
// Units    bytes.
// Threads  immutable after Create.
// Trust    a descriptor is all of its file, whatever part of it somebody is told to map: so what a device must never have is in a
//          file of its own, whose descriptor leaves the monitor for nobody.
// Errors   Create: Status with errno; RESOURCE_EXHAUSTED where the host has not the pages asked for; INVALID_ARGUMENT for reserved
//          parts that are not ascending, apart, in RAM, and of whole pages of the size that backs it.
#ifndef VMM_MEMORY_GUEST_RAM_H_
#define VMM_MEMORY_GUEST_RAM_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

enum class HugePages : uint8_t { kNone, kTransparent, k2MiB, k1GiB };

struct RamPart {
  uint64_t ram_offset = 0;
  uint64_t bytes = 0;
};

struct GuestRamOptions {
  uint64_t bytes = 0;
  HugePages huge_pages = HugePages::kNone;
  bool prefault = false;  // back every page before the guest starts
  bool lock = false;      // mlock: never swapped, implies prefault
  bool mergeable = false; // let the host's same-page merging look at it (a side channel: off)
  std::vector<RamPart> reserved;  // from devices
};

// The pages that `options` back RAM with, in bytes: nothing smaller can be mapped or dropped by itself.
[[nodiscard]] uint64_t RamPageBytes(const GuestRamOptions& options) noexcept;

// Where a part of RAM is.
struct RamPiece {
  RamPart part;
  int fd = -1;  // RamFiles'
  uint64_t fd_offset = 0;
  bool reserved = false;
};

class RamFiles final {
 public:
  RamFiles(std::vector<OwnedFd> files, std::vector<RamPiece> pieces) : files_(std::move(files)), pieces_(std::move(pieces)) {}

  // Ascending, without gaps, all of RAM. Each file's pieces lie in it one after the other.
  [[nodiscard]] const std::vector<RamPiece>& pieces() const noexcept { return pieces_; }
  // What there is of [part.ram_offset, + part.bytes), ascending.
  [[nodiscard]] std::vector<RamPiece> Cut(const RamPart& part) const;
  // The piece that holds `ram_offset`, which is in RAM.
  [[nodiscard]] const RamPiece& At(uint64_t ram_offset) const noexcept;

 private:
  const std::vector<OwnedFd> files_;
  const std::vector<RamPiece> pieces_;
};

class GuestRam final {
 public:
  static absl::StatusOr<std::unique_ptr<GuestRam>> Create(const GuestRamOptions& options);
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;

  // Sealed against growing, shrinking and further seals: a mapping of them can never raise SIGBUS for their size. Kept by who maps
  // parts of them again later.
  [[nodiscard]] const std::shared_ptr<const RamFiles>& files() const { return files_; }
  // The file of what is not reserved: all of RAM, where nothing is.
  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] const GuestRamOptions& options() const { return options_; }

 private:
  GuestRam(std::shared_ptr<const RamFiles> files, const GuestRamOptions& options) : files_(std::move(files)), options_(options) {}
  const std::shared_ptr<const RamFiles> files_;
  const GuestRamOptions options_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_RAM_H_
