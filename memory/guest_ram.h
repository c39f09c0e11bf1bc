// The guest's RAM: a sealed memfd, another one for what is reserved from devices, and a third, empty at first, for pages that are
// withdrawn from devices while the guest runs (withdrawn_pages.h). Who may use RAM gets descriptors and maps them.
//
// Shapes   RAM is counted from 0 without gaps (RamRange::ram_offset), and cut into pieces, each a part of one file. A withdrawn page is
//          in the third file, at the offset that it had in the first.
// Units    bytes.
// Threads  immutable after Create, but for which pages are withdrawn: lookups any; SetWithdrawn as it says.
// Trust    a descriptor is all of its file, whatever part of it somebody is told to map: so what a device must never have is in a
//          file of its own, whose descriptor leaves the monitor for nobody.
// Errors   Create: Status with errno; RESOURCE_EXHAUSTED where the host has not the pages asked for; INVALID_ARGUMENT for reserved
//          parts that are not ascending, apart, in RAM, and of whole pages of the size that backs it; and for withdrawable RAM of
//          reserved huge pages.
#ifndef VMM_MEMORY_GUEST_RAM_H_
#define VMM_MEMORY_GUEST_RAM_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "memory/gpa.h"
#include "memory/page_bits.h"

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
  bool withdrawable = false;      // pages can be withdrawn from devices
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
  // `withdrawn_fd`: of `files`, where pages can be withdrawn.
  RamFiles(std::vector<OwnedFd> files, std::vector<RamPiece> pieces, int withdrawn_fd = -1);

  // Ascending, without gaps, all of RAM. Each file's pieces lie in it one after the other.
  [[nodiscard]] const std::vector<RamPiece>& pieces() const noexcept { return pieces_; }
  // What there is of [part.ram_offset, + part.bytes), ascending.
  [[nodiscard]] std::vector<RamPiece> Cut(const RamPart& part) const;
  // The piece that holds `ram_offset`, which is in RAM.
  [[nodiscard]] const RamPiece& At(uint64_t ram_offset) const noexcept;

  // --- Where pages are by now ---

  // A stretch of one file.
  struct Place {
    int fd = -1;
    uint64_t fd_offset = 0;
    uint64_t bytes = 0;
  };
  // Of RAM at `ram_offset`, `bytes` at most, and as many as follow each other in one file.
  [[nodiscard]] Place PlaceOf(uint64_t ram_offset, uint64_t bytes) const noexcept;
  // -1: pages cannot be withdrawn.
  [[nodiscard]] int withdrawn_fd() const noexcept { return withdrawn_fd_; }
  [[nodiscard]] bool IsWithdrawn(uint64_t ram_offset) const noexcept {
    return withdrawn_fd_ >= 0 && withdrawn_.Get(ram_offset / kPageBytes);
  }
  // Whole pages of one piece that is not reserved. By one thread at a time, which has the content there, and keeps everybody from
  // mapping any of it anew meanwhile.
  void SetWithdrawn(const RamPart& part, bool withdrawn) noexcept {
    withdrawn_.Set(part.ram_offset / kPageBytes, part.bytes / kPageBytes, withdrawn);
  }
  // Of all RAM.
  [[nodiscard]] uint64_t bytes() const noexcept { return pieces_.back().part.ram_offset + pieces_.back().part.bytes; }

 private:
  const std::vector<OwnedFd> files_;
  const std::vector<RamPiece> pieces_;
  const int withdrawn_fd_;
  PageBits withdrawn_;  // none where there is no such file
};

class GuestRam final {
 public:
  static absl::StatusOr<std::unique_ptr<GuestRam>> Create(const GuestRamOptions& options);
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;

  // Sealed against growing, shrinking and further seals: a mapping of them can never raise SIGBUS for their size. Kept by who maps
  // parts of them again later.
  [[nodiscard]] std::shared_ptr<const RamFiles> files() const { return files_; }
  // For WithdrawnPages.
  [[nodiscard]] const std::shared_ptr<RamFiles>& changing_files() { return files_; }
  // The file of what is not reserved: all of RAM, where nothing is.
  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] const GuestRamOptions& options() const { return options_; }

 private:
  GuestRam(std::shared_ptr<RamFiles> files, const GuestRamOptions& options) : files_(std::move(files)), options_(options) {}
  const std::shared_ptr<RamFiles> files_;
  const GuestRamOptions options_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_RAM_H_
