#include "memory/guest_view.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "base/status_macros.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24  // Linux 5.18
#endif

namespace vmm {
namespace {

// What a process of ours has beyond views: programs, stacks, heaps, KVM's pages. A few hundred at most.
constexpr uint64_t kOtherMappings = 4096;
// A range whose pages differ is changed piece by piece, and one that could not be changed back again: on the way there is one more.
constexpr uint64_t kPiecesOnTheWay = 4;

constexpr int ProtectionOf(PageAccess access) noexcept {
  switch (access) {
    case PageAccess::kReadWrite: return PROT_READ | PROT_WRITE;
    case PageAccess::kRead: return PROT_READ;
    case PageAccess::kNone: break;
  }
  return PROT_NONE;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestView>> GuestView::Create(const GuestRam& ram, const MemoryLayout& layout,
                                                             uint32_t overlay_pages, uint32_t protected_pieces,
                                                             PageAttributes* attributes) {
  if (overlay_pages > kMaxOverlayPages) {
    return absl::InvalidArgumentError(
        absl::StrCat("make a view of guest RAM: ", overlay_pages, " overlay pages are more than ", kMaxOverlayPages));
  }
  std::unique_ptr<GuestView> view(new GuestView(ram));
  view->attributes_ = attributes;
  RETURN_IF_ERROR(MapRam(ram, layout, RamUse::kGuest, view->mappings_));
  if (overlay_pages != 0 && view->CanOverlay()) RETURN_IF_ERROR(view->MakeOverlayFile(overlay_pages));
  if (protected_pieces != 0) RETURN_IF_ERROR(view->MakeProtections(layout, overlay_pages, protected_pieces));
  return view;
}

absl::Status GuestView::MakeProtections(const MemoryLayout& layout, uint32_t overlay_pages, uint32_t protected_pieces) {
  if (protected_pieces > kMaxProtectedPieces) {
    return absl::InvalidArgumentError(
        absl::StrCat("protect guest RAM in ", protected_pieces, " pieces: more than ", kMaxProtectedPieces));
  }
  if (!CanOverlay()) {
    return absl::FailedPreconditionError("protect pages of guest RAM: it is of reserved huge pages, of which no part can be protected");
  }
  const uint64_t needed = uint64_t{protected_pieces} + 2 * uint64_t{overlay_pages} + kOtherMappings;
  if (const uint64_t granted = MappingsOfAProcess(); granted < needed) {
    return absl::FailedPreconditionError(absl::StrCat("protect guest RAM in ", protected_pieces, " pieces: a process of this host has ",
                                                      granted, " mappings (vm.max_map_count), and ", needed, " are needed"));
  }
  max_pieces_ = protected_pieces;
  const MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(accesses_, PageAccessTable::Create(layout));
  return absl::OkStatus();
}

absl::Status GuestView::MakeOverlayFile(uint32_t overlay_pages) {
  const uint64_t bytes = uint64_t{overlay_pages} * kPageBytes;
  overlay_fd_.Reset(::memfd_create("guest-overlays", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!overlay_fd_.valid()) return ErrnoStatus(errno, "create overlay file");
  if (::ftruncate(overlay_fd_.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("size overlay file to ", bytes, " bytes"));
  }
  if (::fcntl(overlay_fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal overlay file");
  }
  void* const map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, overlay_fd_.get(), 0);
  if (map == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", bytes, " bytes of overlay pages"));
  overlay_bytes_ = static_cast<std::byte*>(map);
  const MutexLock lock(mutex_);
  overlays_.resize(overlay_pages);
  ::madvise(overlay_bytes_, bytes, MADV_DONTDUMP);
  // Our own mapping holds them: what lies in the view comes and goes.
  if (options_.lock && ::mlock(overlay_bytes_, bytes) != 0) {
    const int error = errno;
    return absl::ResourceExhaustedError(
        ErrnoStatus(error, absl::StrCat("lock ", bytes, " bytes of overlay pages in memory (RLIMIT_MEMLOCK)")).message());
  }
  return absl::OkStatus();
}

GuestView::~GuestView() {
  UnmapRam(mappings_);
  const MutexLock lock(mutex_);
  if (overlay_bytes_ != nullptr) ::munmap(overlay_bytes_, overlays_.size() * kPageBytes);
}

absl::StatusOr<std::unique_ptr<ViewOverlay>> GuestView::NewPage() {
  if (!CanOverlay()) {
    return absl::FailedPreconditionError("make an overlay page: guest RAM is of reserved huge pages, of which no part can be overlaid");
  }
  const MutexLock lock(mutex_);
  for (uint32_t index = 0; index < overlays_.size(); ++index) {
    if (overlays_[index].taken) continue;
    overlays_[index] = {.taken = true};
    std::memset(overlay_bytes_ + index * kPageBytes, 0, kPageBytes);
    return std::unique_ptr<ViewOverlay>(new ViewOverlay(*this, index));
  }
  return absl::ResourceExhaustedError(absl::StrCat("make an overlay page: all ", overlays_.size(), " of this view are in use"));
}

std::byte* GuestView::HostPages(Gpfn guest_page, uint64_t pages) const noexcept {
  // Beyond, the address would wrap to some other page's.
  if (guest_page.raw() > UINT64_MAX / kPageBytes || pages > UINT64_MAX / kPageBytes) return nullptr;
  return FindInRam(mappings_, Gpa(guest_page), pages * kPageBytes);
}

PageAccess GuestView::AccessLocked(Gpfn page) const noexcept {
  return accesses_ == nullptr ? PageAccess::kReadWrite : accesses_->Get(page);
}

const GuestView::Overlay* GuestView::SeenLocked(Gpfn page) const noexcept {
  const Overlay* seen = nullptr;
  for (const Overlay& overlay : overlays_) {
    if (overlay.placed && overlay.at == page && (seen == nullptr || overlay.order > seen->order)) seen = &overlay;
  }
  return seen;
}

std::optional<GuestView::Seen> GuestView::OverlayAt(Gpfn guest_page) const noexcept {
  const MutexLock lock(mutex_);
  const Overlay* const seen = SeenLocked(guest_page);
  if (seen == nullptr) return std::nullopt;
  return Seen{.bytes = overlay_bytes_ + static_cast<uint64_t>(seen - overlays_.data()) * kPageBytes, .access = seen->access};
}

bool GuestView::ShowLocked(Gpfn page) noexcept {
  std::byte* const host = HostPages(page, 1);
  if (host == nullptr) return false;
  const Overlay* const seen = SeenLocked(page);
  if (seen != nullptr) {
    const int protection = seen->access == ViewAccess::kReadWrite ? PROT_READ | PROT_WRITE : PROT_READ;
    const auto offset = static_cast<off_t>(static_cast<uint64_t>(seen - overlays_.data()) * kPageBytes);
    if (::mmap(host, kPageBytes, protection, MAP_SHARED | MAP_FIXED, overlay_fd_.get(), offset) == MAP_FAILED) return false;
    ::madvise(host, kPageBytes, MADV_DONTDUMP);
    if (attributes_ == nullptr || AccessLocked(page) != PageAccess::kNone || attributes_->SetPrivate(page, 1, false)) return true;
    // Not seen, then, and not readable either.
    (void)MapRamBack(page, kPageBytes, PageAccess::kNone);
    return false;
  }
  // Refused, it is the mapping alone that stops the guest.
  if (attributes_ != nullptr && AccessLocked(page) == PageAccess::kNone) (void)attributes_->SetPrivate(page, 1, true);
  // An overlay that goes while the page beneath moves does not open it before its time.
  const bool moving = page.raw() - moving_first_.raw() < moving_pages_;
  const PageAccess access = AccessLocked(page);
  return MapRamBack(page, kPageBytes, moving && access == PageAccess::kReadWrite ? PageAccess::kRead : access);
}

bool GuestView::MapRamBack(Gpfn page, uint64_t bytes, PageAccess access) const noexcept {
  // Pages of the size that backs RAM.
  const RamSpot spot = SpotOf(mappings_, Gpa(page));
  const uint64_t within = spot.ram_offset % RamPageBytes(options_);
  return MapRamAgain(*files_, options_, RamUse::kGuest, spot.host - within, spot.ram_offset - within, bytes, ProtectionOf(access));
}

void GuestView::ShowAgainLocked(Gpfn page) noexcept {
  if (ShowLocked(page)) return;
  // One mapping is replaced by another of the same bounds, so the kernel needs no more than it had. Going on without would leave the
  // guest a page of ours where it is to have its own.
  Log(LogLevel::kError, "memory", absl::StrCat("map back what is under an overlay at page 0x", absl::Hex(page.raw())));
  std::abort();
}

bool GuestView::Place(uint32_t index, Gpfn guest_page, ViewAccess access) noexcept {
  const MutexLock lock(mutex_);
  Overlay& overlay = overlays_[index];
  const Overlay before = overlay;
  overlay.placed = true;
  overlay.at = guest_page;
  overlay.access = access;
  overlay.order = next_order_++;
  // Before the mapping: a processor that runs into it finds the count.
  if (access != ViewAccess::kReadWrite) read_only_.fetch_add(1, std::memory_order_release);
  const bool shown = ShowLocked(guest_page);
  if (!shown) overlay.placed = false;
  // The new place first: placed again where it is, the page never blinks. Others may be executing it.
  if (before.placed && (before.at != guest_page || !shown)) ShowAgainLocked(before.at);
  // The changes before the count: who finds no read-only page any more finds the change that took it.
  changes_.fetch_add(1, std::memory_order_release);
  if (!shown && access != ViewAccess::kReadWrite) read_only_.fetch_sub(1, std::memory_order_release);
  if (before.placed && before.access != ViewAccess::kReadWrite) read_only_.fetch_sub(1, std::memory_order_release);
  return shown;
}

void GuestView::RemoveLocked(Overlay& overlay) noexcept {
  if (!overlay.placed) return;
  overlay.placed = false;
  ShowAgainLocked(overlay.at);
  changes_.fetch_add(1, std::memory_order_release);  // before the count, as in Place
  if (overlay.access != ViewAccess::kReadWrite) read_only_.fetch_sub(1, std::memory_order_release);
}

void GuestView::Remove(uint32_t index) noexcept {
  const MutexLock lock(mutex_);
  RemoveLocked(overlays_[index]);
}

void GuestView::Release(uint32_t index) noexcept {
  const MutexLock lock(mutex_);
  RemoveLocked(overlays_[index]);
  overlays_[index].taken = false;
}

std::optional<Gpfn> GuestView::place(uint32_t index) const noexcept {
  const MutexLock lock(mutex_);
  return overlays_[index].placed ? std::optional(overlays_[index].at) : std::nullopt;
}

uint64_t GuestView::NextOverlaidLocked(uint64_t first, uint64_t end) const noexcept {
  for (const Overlay& overlay : overlays_) {
    if (overlay.placed && overlay.at.raw() >= first && overlay.at.raw() < end) end = overlay.at.raw();
  }
  return end;
}

bool GuestView::ProtectBareLocked(Gpfn first, uint64_t pages, PageAccess access) noexcept {
  const PageAccess before = AccessLocked(first);
  const bool hides = attributes_ != nullptr && access == PageAccess::kNone;
  const bool shows = attributes_ != nullptr && before == PageAccess::kNone;
  std::byte* const host = HostPages(first, pages);
  if (hides && !attributes_->SetPrivate(first, pages, true)) return false;
  // One access before and one after: all of it, or nothing.
  const bool mapped = ::mprotect(host, pages * kPageBytes, ProtectionOf(access)) == 0;
  if (mapped && (!shows || attributes_->SetPrivate(first, pages, false))) {
    accesses_->Set(first, pages, access);
    return true;
  }
  const bool restored = mapped ? ::mprotect(host, pages * kPageBytes, ProtectionOf(before)) == 0
                               : !hides || attributes_->SetPrivate(first, pages, false);
  if (restored) return false;
  // The host refuses what it has just granted. To go on would be to break a promise to a higher level, or to stop the guest for ever.
  Log(LogLevel::kError, "memory", absl::StrCat("take back a change of protection at page 0x", absl::Hex(first.raw())));
  std::abort();
}

uint64_t GuestView::ProtectRunLocked(Gpfn first, uint64_t pages, PageAccess access) noexcept {
  const uint64_t end = first.raw() + pages;
  for (uint64_t page = first.raw(); page < end;) {
    const uint64_t overlaid = NextOverlaidLocked(page, end);
    if (overlaid != page && !ProtectBareLocked(Gpfn(page), overlaid - page, access)) return page - first.raw();
    if (overlaid == end) break;
    accesses_->Set(Gpfn(overlaid), 1, access);  // mapped so when the overlay goes
    page = overlaid + 1;
  }
  return pages;
}

bool GuestView::ForEachBareLocked(Gpfn first, uint64_t pages,
                                  absl::FunctionRef<bool(Gpfn, uint64_t, PageAccess)> change) const noexcept {
  const uint64_t end = first.raw() + pages;
  for (uint64_t page = first.raw(); page < end;) {
    const uint64_t overlaid = NextOverlaidLocked(page, end);
    while (page < overlaid) {
      const uint64_t run = accesses_ == nullptr ? overlaid - page : accesses_->RunLength(Gpfn(page), overlaid - page);
      if (!change(Gpfn(page), run, AccessLocked(Gpfn(page)))) return false;
      page += run;
    }
    ++page;  // the overlay's
  }
  return true;
}

bool GuestView::SetWritableLocked(Gpfn first, uint64_t pages, int protection) noexcept {
  return ForEachBareLocked(first, pages, [&](Gpfn start, uint64_t count, PageAccess access) {
    return access != PageAccess::kReadWrite || ::mprotect(HostPages(start, count), count * kPageBytes, protection) == 0;
  });
}

bool GuestView::Move(Gpfn first, uint64_t pages, absl::FunctionRef<bool()> move) noexcept {
  const MutexLock lock(mutex_);
  // Before the mapping, whose change stops all processors: who runs into it finds the number.
  moves_.fetch_add(1, std::memory_order_release);
  moving_first_ = first;
  moving_pages_ = pages;
  if (!SetWritableLocked(first, pages, PROT_READ) || !move()) {
    EndMoveLocked(first, pages);
    return false;
  }
  const bool shown = ForEachBareLocked(first, pages, [this](Gpfn start, uint64_t count, PageAccess access) {
    return MapRamBack(start, count * kPageBytes, access == PageAccess::kReadWrite ? PageAccess::kRead : access);
  });
  if (shown) return true;
  // Mappings are replaced by others of the same bounds. Going on would leave this level other memory than all others have.
  Log(LogLevel::kError, "memory", absl::StrCat("map the new place of page 0x", absl::Hex(first.raw())));
  std::abort();
}

void GuestView::EndMove(Gpfn first, uint64_t pages) noexcept {
  const MutexLock lock(mutex_);
  EndMoveLocked(first, pages);
}

void GuestView::EndMoveLocked(Gpfn first, uint64_t pages) noexcept {
  moving_pages_ = 0;
  if (!SetWritableLocked(first, pages, PROT_READ | PROT_WRITE)) {
    // The bounds are there already. Else the guest would be stopped there for ever.
    Log(LogLevel::kError, "memory", absl::StrCat("let page 0x", absl::Hex(first.raw()), " be written again after its move"));
    std::abort();
  }
  // release, after the mapping: who finds it even finds the page writable.
  moves_.fetch_add(1, std::memory_order_release);
}

GuestView::Protected GuestView::Protect(Gpfn first, uint64_t pages, PageAccess access) noexcept {
  if (pages == 0) return {ViewProtect::kDone, 0};
  if (HostPages(first, pages) == nullptr) return {ViewProtect::kNotRam, 0};
  const MutexLock lock(mutex_);
  if (accesses_ == nullptr) return {ViewProtect::kTooManyPieces, 0};
  const uint64_t borders = accesses_->BordersAfter(first, pages, access);
  if (borders > accesses_->borders() && borders > max_pieces_ + kPiecesOnTheWay) return {ViewProtect::kTooManyPieces, 0};
  for (uint64_t done = 0; done < pages;) {
    const Gpfn page(first.raw() + done);
    const uint64_t run = accesses_->RunLength(page, pages - done);
    if (accesses_->Get(page) != access) {
      const uint64_t changed = ProtectRunLocked(page, run, access);
      if (changed < run) return {ViewProtect::kHostRefused, done + changed};
    }
    done += run;
  }
  return {ViewProtect::kDone, pages};
}

bool GuestView::HasRoomFor(Gpfn first, uint64_t pages, PageAccess access) const noexcept {
  if (pages == 0) return true;
  const MutexLock lock(mutex_);
  if (accesses_ == nullptr || HostPages(first, pages) == nullptr) return false;
  const uint64_t borders = accesses_->BordersAfter(first, pages, access);
  return borders <= accesses_->borders() || borders <= max_pieces_;
}

GuestView::AccessRun GuestView::RunAt(Gpfn first, uint64_t pages) const noexcept {
  if (pages == 0 || HostPages(first, pages) == nullptr) return {PageAccess::kReadWrite, 0};
  const MutexLock lock(mutex_);
  if (accesses_ == nullptr) return {PageAccess::kReadWrite, pages};
  return {accesses_->Get(first), accesses_->RunLength(first, pages)};
}

uint64_t GuestView::protected_pieces() const noexcept {
  const MutexLock lock(mutex_);
  return accesses_ == nullptr ? 0 : accesses_->borders();
}

uint64_t GuestView::protected_pages() const noexcept {
  const MutexLock lock(mutex_);
  return accesses_ == nullptr ? 0 : accesses_->protected_pages();
}

void GuestView::ResetProtections() noexcept {
  if (max_pieces_ == 0) return;  // made for none
  for (const RamMapping& mapping : mappings_) {
    if (Protect(mapping.range.start.page(), mapping.range.bytes / kPageBytes, PageAccess::kReadWrite).outcome != ViewProtect::kDone) {
      Log(LogLevel::kError, "memory", "take back all protections of guest RAM");
      std::abort();
    }
  }
}

bool GuestView::DropPage(Gpfn guest_page) noexcept {
  std::byte* host = HostPages(guest_page, 1);
  if (host == nullptr) return false;
  const uint64_t bytes = RamPageBytes(options_);
  host = reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(host) & ~(bytes - 1));
  // A shared mapping: the contents are the file's. Locked ones need a word of their own, and are locked again when next touched.
  if (::madvise(host, bytes, MADV_DONTNEED) == 0 || ::madvise(host, bytes, MADV_DONTNEED_LOCKED) == 0) return true;
  // An older kernel: a new mapping of the same drops KVM's translations as well.
  const MutexLock lock(mutex_);
  return CanOverlay() ? ShowLocked(guest_page) : MapRamBack(guest_page, bytes, PageAccess::kReadWrite);
}

void GuestView::Prefault(Gpa gpa, uint64_t bytes) noexcept {
  for (const RamMapping& mapping : mappings_) {
    const uint64_t start = std::max(gpa.raw(), mapping.range.start.raw());
    const uint64_t range_end = mapping.range.start.raw() + mapping.range.bytes;
    const uint64_t end = bytes < range_end - std::min(gpa.raw(), range_end) ? gpa.raw() + bytes : range_end;
    if (start >= end) continue;
    const uint64_t first = (start - mapping.range.start.raw()) / kPageBytes * kPageBytes;
    const uint64_t last = (end - mapping.range.start.raw() + kPageBytes - 1) / kPageBytes * kPageBytes;
    ::madvise(mapping.host + first, last - first, MADV_POPULATE_WRITE);
  }
}

ViewOverlay::~ViewOverlay() { view_.Release(index_); }
std::byte* ViewOverlay::data() const noexcept { return view_.overlay_bytes_ + index_ * kPageBytes; }
bool ViewOverlay::Place(Gpfn guest_page, ViewAccess access) noexcept { return view_.Place(index_, guest_page, access); }
void ViewOverlay::Remove() noexcept { view_.Remove(index_); }
std::optional<Gpfn> ViewOverlay::place() const noexcept { return view_.place(index_); }

}  // namespace vmm
