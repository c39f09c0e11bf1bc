#include "memory/withdrawn_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

absl::StatusOr<std::byte*> MapFile(int fd, uint64_t bytes) {
  void* const map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (map == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", bytes, " bytes of guest RAM to move pages in"));
  ::madvise(map, bytes, MADV_DONTDUMP);
  return static_cast<std::byte*>(map);
}

// Memory for them is asked for beforehand, since a store that gets none would be a SIGBUS. Before Linux 5.14 it has to do.
bool Back(std::byte* pages, uint64_t bytes) noexcept { return ::madvise(pages, bytes, MADV_POPULATE_WRITE) == 0 || errno == EINVAL; }

}  // namespace

absl::StatusOr<std::unique_ptr<WithdrawnPages>> WithdrawnPages::Create(GuestRam& ram, const MemoryLayout& layout, const GuestMemory& memory,
                                                                       std::vector<GuestView*> views, uint32_t pieces) {
  const std::shared_ptr<RamFiles>& files = ram.changing_files();
  if (files->withdrawn_fd() < 0) return absl::FailedPreconditionError("withdraw pages of guest RAM: it was made for none");
  // Overlays, and all else that views and the process have.
  constexpr uint64_t kOthers = 2 * uint64_t{GuestView::kMaxOverlayPages};
  const uint64_t needed = uint64_t{pieces} * MappingsForABorder(views.size()) + kOthers;
  if (const uint64_t granted = MappingsOfAProcess(); granted < needed) {
    return absl::FailedPreconditionError(absl::StrCat("withdraw guest RAM in ", pieces, " pieces: a process of this host has ", granted,
                                                      " mappings (vm.max_map_count), and ", needed, " are needed"));
  }
  std::unique_ptr<WithdrawnPages> pages(new WithdrawnPages(files, layout, memory, std::move(views)));
  for (const RamPiece& piece : files->pieces()) {
    if (!piece.reserved) pages->file_bytes_ = piece.fd_offset + piece.part.bytes;
  }
  auto of_devices = MapFile(ram.fd(), pages->file_bytes_);
  if (!of_devices.ok()) return of_devices.status();
  pages->of_devices_ = *of_devices;
  auto withdrawn = MapFile(files->withdrawn_fd(), pages->file_bytes_);
  if (!withdrawn.ok()) return withdrawn.status();
  pages->withdrawn_ = *withdrawn;
  return pages;
}

WithdrawnPages::~WithdrawnPages() {
  if (of_devices_ != nullptr) ::munmap(of_devices_, file_bytes_);
  if (withdrawn_ != nullptr) ::munmap(withdrawn_, file_bytes_);
}

std::byte* WithdrawnPages::OfDevices(uint64_t ram_offset) const noexcept {
  const RamPiece& piece = files_->At(ram_offset);
  return of_devices_ + piece.fd_offset + (ram_offset - piece.part.ram_offset);
}

std::byte* WithdrawnPages::Withdrawn(uint64_t ram_offset) const noexcept { return withdrawn_ + (OfDevices(ram_offset) - of_devices_); }

uint64_t WithdrawnPages::Set(Gpfn first, uint64_t pages, PageAccess access) noexcept {
  const uint64_t start = *layout_.RamOffset(Gpa(first), pages * kPageBytes);
  const bool withdraw = access != PageAccess::kReadWrite;
  for (uint64_t done = 0; done < pages * kPageBytes;) {
    const uint64_t at = start + done;
    const uint64_t bytes = files_->PlaceOf(at, pages * kPageBytes - done).bytes;
    const Gpfn page(first.raw() + done / kPageBytes);
    done += bytes;
    if (files_->At(at).reserved) continue;
    if (files_->IsWithdrawn(at) != withdraw) {
      if (!Move(page, at, bytes, withdraw)) return page.raw() - first.raw();
    } else if (access == PageAccess::kRead) {
      // VTL0 could not read it before, or is only told again that it can: as it is now.
      if (!Back(OfDevices(at), bytes)) return page.raw() - first.raw();
      ForgetCleared(at, bytes);
      std::memcpy(OfDevices(at), Withdrawn(at), bytes);
    }
    if (!withdraw) continue;
    if (access == PageAccess::kNone) Clear(at, bytes);
    ::madvise(Withdrawn(at), bytes, MADV_DONTNEED);
    ::madvise(OfDevices(at), bytes, MADV_DONTNEED);
  }
  return pages;
}

void WithdrawnPages::Clear(uint64_t ram_offset, uint64_t bytes) noexcept {
  ForgetCleared(ram_offset, bytes);
  std::memset(OfDevices(ram_offset), 0, bytes);
  cleared_.Set(ram_offset / kPageBytes, bytes / kPageBytes, true);
}

void WithdrawnPages::ForgetCleared(uint64_t ram_offset, uint64_t bytes) noexcept {
  written_.fetch_add(WrittenIn(ram_offset, bytes), std::memory_order_relaxed);
  cleared_.Set(ram_offset / kPageBytes, bytes / kPageBytes, false);
}

uint64_t WithdrawnPages::WrittenIn(uint64_t ram_offset, uint64_t bytes) const noexcept {
  static constexpr std::array<std::byte, kPageBytes> kZeros{};
  uint64_t written = 0;
  const uint64_t end = (ram_offset + bytes) / kPageBytes;
  for (uint64_t page = ram_offset / kPageBytes; page < end; ++page) {
    if (cleared_.Word(page) == 0) {  // most of RAM
      page |= PageBits::kPagesPerWord - 1;
    } else if (cleared_.Get(page)) {
      written += std::memcmp(OfDevices(page * kPageBytes), kZeros.data(), kPageBytes) != 0;
    }
  }
  return written;
}

WithdrawnPages::Stats WithdrawnPages::stats() const noexcept {
  Stats stats{.pages = pages_.load(std::memory_order_relaxed),
              .moved = moved_.load(std::memory_order_relaxed),
              .written = written_.load(std::memory_order_relaxed)};
  if (stats.pages == 0) return stats;
  for (const RamPiece& piece : files_->pieces()) {
    if (!piece.reserved) stats.written += WrittenIn(piece.part.ram_offset, piece.part.bytes);
  }
  return stats;
}

bool WithdrawnPages::MoveBehind(size_t view, Gpfn first, uint64_t ram_offset, uint64_t bytes, bool withdraw) noexcept {
  if (view < views_.size()) {
    return views_[view]->Move(first, bytes / kPageBytes, [&] { return MoveBehind(view + 1, first, ram_offset, bytes, withdraw); });
  }
  std::byte* const from = withdraw ? OfDevices(ram_offset) : Withdrawn(ram_offset);
  std::byte* const to = withdraw ? Withdrawn(ram_offset) : OfDevices(ram_offset);
  std::memcpy(to, from, bytes);
  files_->SetWithdrawn({ram_offset, bytes}, withdraw);
  return true;
}

bool WithdrawnPages::Move(Gpfn first, uint64_t ram_offset, uint64_t bytes, bool withdraw) noexcept {
  const uint64_t pages = bytes / kPageBytes;
  if (!Back(withdraw ? Withdrawn(ram_offset) : OfDevices(ram_offset), bytes)) return false;
  if (!withdraw) ForgetCleared(ram_offset, bytes);  // before its content is there again
  if (!memory_.Move(first, pages, [&] { return MoveBehind(0, first, ram_offset, bytes, withdraw); })) return false;
  for (GuestView* const view : views_) view->EndMove(first, pages);
  // No device has that file: nobody else holds its lock for long.
  if (!withdraw) ::madvise(Withdrawn(ram_offset), bytes, MADV_REMOVE);
  pages_.fetch_add(withdraw ? pages : -pages, std::memory_order_relaxed);
  moved_.fetch_add(pages, std::memory_order_relaxed);
  return true;
}

void WithdrawnPages::Reset() noexcept {
  // By so much at once that no more memory is needed for the moment.
  constexpr uint64_t kAtOnce = 512;
  for (const RamRange& range : layout_.ram()) {
    const uint64_t pages = range.bytes / kPageBytes;
    for (uint64_t done = 0; done < pages; done += kAtOnce) {
      const uint64_t count = std::min(kAtOnce, pages - done);
      if (Set(Gpfn(range.start.page().raw() + done), count, PageAccess::kReadWrite) == count) continue;
      Log(LogLevel::kError, "memory", "give all pages of guest RAM back to devices");
      std::abort();
    }
  }
}

}  // namespace vmm
