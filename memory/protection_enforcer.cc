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

// To go on with a page that is not what the map says would be to break a promise to a higher level.
[[noreturn]] void EndOutOfStep(uint64_t page) noexcept {
  Log(LogLevel::kError, "memory",
      absl::StrCat("bring page 0x", absl::Hex(page), " back in step with its protections: the host refuses what it had granted"));
  std::abort();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProtectionEnforcer>> ProtectionEnforcer::Create(ProtectionMap& map, std::vector<Level> levels,
                                                                               Unenforceable unenforceable) {
  if (levels.empty() || levels.size() + 1 > ProtectionMap::kMaxLevels) {
    return absl::InvalidArgumentError(absl::StrCat("enforce page protections of ", levels.size(), " levels: 1 to ",
                                                   ProtectionMap::kMaxLevels - 1, " can be restricted"));
  }
  return std::unique_ptr<ProtectionEnforcer>(new ProtectionEnforcer(map, std::move(levels), unenforceable));
}

ProtectionEnforcer::Run ProtectionEnforcer::PlanLocked(unsigned owner, PageRights rights, uint64_t page) const noexcept {
  Run run{.first = page, .pages = 1};
  for (unsigned level = 0; level < owner; ++level) {
    PageRights effective = rights;
    for (unsigned above = level + 1; above <= levels_.size(); ++above) {
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
  if (result.done != 0) gate_.Drain();
  CountFailure(result.status);
  return result;
}

ProtectionEnforcer::Result ProtectionEnforcer::FinishRunLocked(unsigned owner, PageRights rights, const Run& run) noexcept {
  for (unsigned level = 0; level < owner; ++level) {
    if (!levels_[level].view->HasRoomFor(Gpfn(run.first), run.pages, run.access[level])) return {ProtectStatus::kTooManyPieces, 0};
  }
  uint64_t done = run.pages;
  for (unsigned level = 0; level < owner; ++level) {
    const uint64_t before = done;
    done = ApplyLocked(levels_[level], run.first, before, run.access[level]);
    for (unsigned other = 0; other < level && done < before; ++other) RestoreLocked(other, run.first + done, before - done);
  }
  if (done != 0) {
    NoListener listener;
    (void)map_.Set(owner, Gpfn(run.first), done, rights, listener);  // legal, and RAM
    Count(pages_, done);
    if (run.rounded) Count(rounded_, done);
  }
  return {done == run.pages ? ProtectStatus::kDone : ProtectStatus::kHostRefused, done};
}

uint64_t ProtectionEnforcer::ApplyLocked(const Level& level, uint64_t first, uint64_t pages, PageAccess access) noexcept {
  for (uint64_t done = 0; done < pages;) {
    const Gpfn page(first + done);
    const GuestView::AccessRun run = level.view->RunAt(page, pages - done);
    if (run.access != access) {
      Count(changes_);
      const bool attribute = level.attributes != nullptr;
      const bool hides = attribute && access == PageAccess::kNone;
      const bool shows = attribute && run.access == PageAccess::kNone;
      if (hides && !level.attributes->SetPrivate(page, run.pages, true)) return done;
      uint64_t changed = level.view->Protect(page, run.pages, access).pages;
      if (hides && changed < run.pages &&
          !level.attributes->SetPrivate(Gpfn(page.raw() + changed), run.pages - changed, false)) {
        EndOutOfStep(page.raw() + changed);
      }
      if (shows && changed != 0 && !level.attributes->SetPrivate(page, changed, false)) {
        if (level.view->Protect(page, changed, run.access).pages != changed) EndOutOfStep(page.raw());
        changed = 0;
      }
      if (changed < run.pages) return done + changed;
    }
    done += run.pages;
  }
  return pages;
}

void ProtectionEnforcer::RestoreLocked(unsigned level, uint64_t first, uint64_t pages) noexcept {
  map_.ForEachRange(level, Gpfn(first), pages, [&](Gpfn start, uint64_t count, PageRights rights) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (ApplyLocked(levels_[level], start.raw(), count, AccessOf(rights)) != count) EndOutOfStep(start.raw());
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
  for (const Level& level : levels_) {
    if (level.attributes != nullptr) {
      map_.ForEachRange(/*level=*/0, Gpfn(0), UINT64_MAX, [&](Gpfn first, uint64_t pages, PageRights) {
        if (!level.attributes->SetPrivate(first, pages, false)) EndOutOfStep(first.raw());
      });
    }
    level.view->ResetProtections();
  }
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
  return {.pages = pages_.load(std::memory_order_relaxed),
          .changes = changes_.load(std::memory_order_relaxed),
          .rounded = rounded_.load(std::memory_order_relaxed),
          .not_enforceable = not_enforceable_.load(std::memory_order_relaxed),
          .too_many_pieces = too_many_pieces_.load(std::memory_order_relaxed),
          .host_refused = host_refused_.load(std::memory_order_relaxed)};
}

}  // namespace vmm
