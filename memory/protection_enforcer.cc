#include "memory/protection_enforcer.h"

#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace vmm {
namespace {

// The map's changes are put into views before it is told of them.
class NoListener final : public ProtectionMap::Listener {
 public:
  void OnChange(unsigned, Gpfn, uint64_t, PageRights, PageRights) noexcept override {}
};

constexpr uint8_t kReadWrite = PageRights::kRead | PageRights::kWrite;

void Count(std::atomic<uint64_t>& counter, uint64_t more = 1) noexcept { counter.fetch_add(more, std::memory_order_relaxed); }

}  // namespace

absl::StatusOr<std::unique_ptr<ProtectionEnforcer>> ProtectionEnforcer::Create(ProtectionMap& map, std::vector<GuestView*> views,
                                                                               Unenforceable unenforceable, WithdrawnPages* withdrawn) {
  if (views.empty() || views.size() + 1 > ProtectionMap::kMaxLevels) {
    return absl::InvalidArgumentError(absl::StrCat("enforce page protections of ", views.size(), " levels: 1 to ",
                                                   ProtectionMap::kMaxLevels - 1, " can be restricted"));
  }
  return std::unique_ptr<ProtectionEnforcer>(new ProtectionEnforcer(map, std::move(views), unenforceable, withdrawn));
}

ProtectionEnforcer::Run ProtectionEnforcer::PlanLocked(unsigned owner, PageRights rights, uint64_t page) const noexcept {
  Run run{.first = page, .pages = 1};
  for (unsigned level = 0; level < owner; ++level) {
    PageRights effective = rights;
    for (unsigned above = level + 1; above <= views_.size(); ++above) {
      if (above != owner) effective = effective & map_.Imposed(above, Gpfn(page));
    }
    run.access[level] = AccessOf(effective);
    run.rounded = run.rounded || RoundUp(effective) != effective;
  }
  return run;
}

ProtectionEnforcer::Result ProtectionEnforcer::Protect(unsigned owner, PageRights rights,
                                                       std::span<const uint64_t> guest_pages) noexcept {
  const MutexLock lock(mutex_);
  changes_.fetch_add(1, std::memory_order_release);
  Result result{ProtectStatus::kDone, 0};
  if (!PageRights::FromMapFlags(rights.bits(), /*mode_based=*/true).has_value()) {
    result.status = ProtectStatus::kNotLegal;
  } else if (!MayEnforce(rights)) {
    result.status = ProtectStatus::kNotEnforceable;
  }
  Run run;
  const auto finish = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (run.pages == 0) return;
    const Result finished = FinishRunLocked(owner, rights, run);
    result.done += finished.done;
    result.status = finished.status;
    run.pages = 0;
  };
  for (size_t i = 0; i < guest_pages.size() && result.status == ProtectStatus::kDone; ++i) {
    const uint64_t page = guest_pages[i];
    if (!map_.IsRam(Gpfn(page), 1)) {
      finish();
      if (result.status == ProtectStatus::kDone) result.status = ProtectStatus::kNotRam;
      break;
    }
    const Run next = PlanLocked(owner, rights, page);
    if (run.pages != 0 && run.first + run.pages == page && run.access == next.access && run.rounded == next.rounded) {
      ++run.pages;
      continue;
    }
    finish();
    run = next;
  }
  if (result.status == ProtectStatus::kDone) finish();
  changes_.fetch_add(1, std::memory_order_release);
  if (result.done != 0) gate_.Drain();
  CountFailure(result.status);
  return result;
}

ProtectionEnforcer::Result ProtectionEnforcer::FinishRunLocked(unsigned owner, PageRights rights, const Run& run) noexcept {
  for (unsigned level = 0; level < owner; ++level) {
    if (!views_[level]->HasRoomFor(Gpfn(run.first), run.pages, run.access[level])) return {ProtectStatus::kTooManyPieces, 0};
  }
  // VTL0 gets a page when devices have it again, and loses it before they do: a page moves while VTL0 cannot write it.
  const bool for_devices_first = run.access[0] == PageAccess::kReadWrite;
  uint64_t done = for_devices_first ? SetForDevicesLocked(run.first, run.pages, run.access[0]) : run.pages;
  for (unsigned level = 0; level < owner; ++level) {
    const uint64_t before = done;
    done = views_[level]->Protect(Gpfn(run.first), before, run.access[level]).pages;
    for (unsigned other = 0; other < level && done < before; ++other) RestoreLocked(other, run.first + done, before - done);
    if (for_devices_first && done < before) RestoreForDevicesLocked(run.first + done, before - done);
  }
  if (!for_devices_first) {
    const uint64_t before = done;
    done = SetForDevicesLocked(run.first, before, run.access[0]);
    for (unsigned level = 0; level < owner && done < before; ++level) RestoreLocked(level, run.first + done, before - done);
  }
  if (done != 0) {
    NoListener listener;
    (void)map_.Set(owner, Gpfn(run.first), done, rights, listener);  // legal, and RAM
    Count(pages_, done);
    Count(runs_);
    if (run.rounded) Count(rounded_, done);
  }
  return {done == run.pages ? ProtectStatus::kDone : ProtectStatus::kHostRefused, done};
}

uint64_t ProtectionEnforcer::SetForDevicesLocked(uint64_t first, uint64_t pages, PageAccess access) noexcept {
  return withdrawn_ == nullptr || pages == 0 ? pages : withdrawn_->Set(Gpfn(first), pages, access);
}

void ProtectionEnforcer::RestoreForDevicesLocked(uint64_t first, uint64_t pages) noexcept {
  map_.ForEachRange(0, Gpfn(first), pages, [&](Gpfn start, uint64_t count, PageRights rights) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (SetForDevicesLocked(start.raw(), count, AccessOf(rights)) == count) return;
    // As in RestoreLocked.
    Log(LogLevel::kError, "memory", absl::StrCat("withdraw page 0x", absl::Hex(start.raw()), " from devices again"));
    std::abort();
  });
}

void ProtectionEnforcer::RestoreLocked(unsigned level, uint64_t first, uint64_t pages) noexcept {
  map_.ForEachRange(level, Gpfn(first), pages, [&](Gpfn start, uint64_t count, PageRights rights) {
    if (views_[level]->Protect(start, count, AccessOf(rights)).pages == count) return;
    // The host refuses what it had granted. To go on would be to break a promise to a higher level.
    Log(LogLevel::kError, "memory", absl::StrCat("bring page 0x", absl::Hex(start.raw()), " back in step with its protections"));
    std::abort();
  });
}

ProtectStatus ProtectionEnforcer::SetDefault(unsigned owner, PageRights rights) noexcept {
  const MutexLock lock(mutex_);
  if ((rights.bits() & kReadWrite) != kReadWrite) return ProtectStatus::kNotLegal;
  if (!MayEnforce(rights)) {
    CountFailure(ProtectStatus::kNotEnforceable);
    return ProtectStatus::kNotEnforceable;
  }
  // Execution alone is taken away: what the views enforce is the same before and after, whatever other owners say.
  NoListener listener;
  switch (map_.SetDefault(owner, rights, listener)) {
    case ProtectionResult::kDone: break;
    case ProtectionResult::kNotRam:
    case ProtectionResult::kNotLegal: return ProtectStatus::kNotLegal;
    case ProtectionResult::kDefaultIsFixed: return ProtectStatus::kDefaultIsFixed;
  }
  if (RoundUp(rights) != rights) Count(rounded_);
  gate_.Drain();
  return ProtectStatus::kDone;
}

void ProtectionEnforcer::Reset() noexcept {
  const MutexLock lock(mutex_);
  map_.Reset();
  if (withdrawn_ != nullptr) withdrawn_->Reset();
  for (GuestView* const view : views_) view->ResetProtections();
}

void ProtectionEnforcer::CountFailure(ProtectStatus status) noexcept {
  switch (status) {
    case ProtectStatus::kNotEnforceable: Count(not_enforceable_); break;
    case ProtectStatus::kTooManyPieces: Count(too_many_pieces_); break;
    case ProtectStatus::kHostRefused: Count(host_refused_); break;
    case ProtectStatus::kDone:
    case ProtectStatus::kNotRam:
    case ProtectStatus::kNotLegal:
    case ProtectStatus::kDefaultIsFixed: break;
  }
}

ProtectionEnforcer::Stats ProtectionEnforcer::stats() const noexcept {
  uint64_t protected_pages = 0;
  for (const GuestView* const view : views_) protected_pages += view->protected_pages();
  const WithdrawnPages::Stats withdrawn = withdrawn_ == nullptr ? WithdrawnPages::Stats{} : withdrawn_->stats();
  return {.pages = pages_.load(std::memory_order_relaxed),
          .runs = runs_.load(std::memory_order_relaxed),
          .rounded = rounded_.load(std::memory_order_relaxed),
          .not_enforceable = not_enforceable_.load(std::memory_order_relaxed),
          .too_many_pieces = too_many_pieces_.load(std::memory_order_relaxed),
          .host_refused = host_refused_.load(std::memory_order_relaxed),
          .protected_pages = protected_pages,
          .withdrawn_pages = withdrawn.pages,
          .written_pages = withdrawn.written};
}

}  // namespace vmm
