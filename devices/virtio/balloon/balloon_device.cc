#include "devices/virtio/balloon/balloon_device.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

namespace vb = virtio_balloon;

}  // namespace

BalloonDevice::BalloonDevice(BalloonHost& host, const BalloonOptions& options) : host_(host), options_(options) {
  config_.num_pages = options.target_pages;
  if (options.stats_seconds != 0) stats_due_ms_ = host.NowMs() + uint64_t{options.stats_seconds} * 1000;
  Schedule();
}

uint64_t BalloonDevice::features() const noexcept {
  return vb::kFeatureStatsVq | vb::kFeaturePagePoison | (options_.deflate_on_oom ? vb::kFeatureDeflateOnOom : 0) |
         (options_.reporting ? vb::kFeatureReporting : 0);
}

void BalloonDevice::OnHost(BackendHost& host) {
  backend_ = &host;
  Changed();
}

bool BalloonDevice::WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept {
  uint32_t value;
  if (data.size() != sizeof(value)) return false;
  std::memcpy(&value, data.data(), sizeof(value));
  if (offset == offsetof(vb::Config, actual)) {
    config_.actual = value;
    actual_known_ = true;
  } else if (offset == offsetof(vb::Config, poison_val) && (accepted_ & vb::kFeaturePagePoison) != 0) {
    config_.poison_val = value;
    poison_known_ = true;
  } else {
    return false;
  }
  Changed();
  return true;
}

void BalloonDevice::Discard(std::byte* start, uint64_t bytes) noexcept {
  if (host_.Discard(start, bytes)) {
    report_.discarded_bytes += bytes;
  } else {
    report_.refused_pages += bytes / vb::kPageBytes;
  }
}

void BalloonDevice::DiscardPages(BackendQueue& queue, std::span<uint32_t> pfns) noexcept {
  // Neighbours in one call: the driver takes pages as its allocator gives them, mostly in runs, upwards or downwards.
  std::sort(pfns.begin(), pfns.end());
  std::byte* start = nullptr;
  uint64_t bytes = 0;
  uint64_t last = 0;
  for (const uint32_t pfn : pfns) {
    if (bytes != 0 && pfn == last) continue;
    std::byte* const page = queue.Find(Gpa(uint64_t{pfn} * vb::kPageBytes), vb::kPageBytes);
    if (page == nullptr) {
      ++report_.refused_pages;
      continue;
    }
    last = pfn;
    // Neighbours in the guest may lie in two of our mappings.
    if (bytes != 0 && page == start + bytes) {
      bytes += vb::kPageBytes;
      continue;
    }
    if (bytes != 0) Discard(start, bytes);
    start = page;
    bytes = vb::kPageBytes;
  }
  if (bytes != 0) Discard(start, bytes);
}

void BalloonDevice::Inflate(BackendQueue& queue) noexcept {
  const auto count = static_cast<size_t>(std::min<uint64_t>(chain_.readable_bytes / sizeof(uint32_t), kMaxPfns));
  report_.refused_pages += chain_.readable_bytes / sizeof(uint32_t) - count;
  // A copy: the guest may change the numbers while they are looked at.
  pfns_.resize(count);
  (void)chain_.Read(0, std::as_writable_bytes(std::span(pfns_)));
  DiscardPages(queue, pfns_);
}

void BalloonDevice::DiscardReported() noexcept {
  const bool poisoned = (accepted_ & vb::kFeaturePagePoison) != 0;
  if (!options_.reporting || (poisoned && (!poison_known_ || config_.poison_val != 0))) return;
  for (const iovec& segment : chain_.writable) {
    const auto start = reinterpret_cast<uintptr_t>(segment.iov_base);
    const uintptr_t first = (start + vb::kPageBytes - 1) / vb::kPageBytes * vb::kPageBytes;
    const uintptr_t end = (start + segment.iov_len) / vb::kPageBytes * vb::kPageBytes;
    if (first < end) Discard(static_cast<std::byte*>(segment.iov_base) + (first - start), end - first);
  }
}

bool BalloonDevice::TakeStats() noexcept {
  report_.stats_given = 0;
  vb::Stat stat;
  for (uint64_t at = 0; at + sizeof(stat) <= chain_.readable_bytes && at < 64 * sizeof(stat); at += sizeof(stat)) {
    if (chain_.Read(at, std::as_writable_bytes(std::span(&stat, 1))) != sizeof(stat)) break;
    if (stat.tag >= vb::kStatCount) continue;
    report_.stats[stat.tag] = stat.value;
    report_.stats_given |= uint64_t{1} << stat.tag;
  }
  Changed();
  if (has_stats_chain_) return false;  // a second one: the driver has no use for it
  std::swap(stats_chain_, chain_);
  has_stats_chain_ = true;
  return true;
}

bool BalloonDevice::Process(uint16_t index, BackendQueue& queue) noexcept {
  if (index == vb::kStats && has_stats_chain_ && stats_wanted_) {
    stats_wanted_ = false;
    has_stats_chain_ = false;
    queue.Push(stats_chain_, 0);
  }
  bool changed = false;
  bool more = true;
  for (int i = 0; i < kQuantum; ++i) {
    if (queue.Pop(chain_) != BackendQueue::PopResult::kChain) {
      more = false;
      break;
    }
    switch (index) {
      case vb::kInflate:
        Inflate(queue);
        changed = true;
        break;
      case vb::kDeflate: break;  // the next touch of such a page finds it
      case vb::kStats:
        if (TakeStats()) continue;
        break;
      default:
        DiscardReported();
        changed = true;
        break;
    }
    queue.Push(chain_, 0);
  }
  if (changed) Changed();
  return more;
}

void BalloonDevice::OnQueueStopped(uint16_t index) noexcept {
  if (index == vb::kStats) has_stats_chain_ = false;
}

void BalloonDevice::OnCommand(const vb::Command& command) {
  if (!actual_known_) {
    config_.actual = command.actual_pages;
    actual_known_ = true;
  }
  if (!poison_known_ && command.poison_known != 0) {
    config_.poison_val = command.poison_val;
    poison_known_ = true;
  }
  const bool other = config_.num_pages != command.target_pages;
  config_.num_pages = command.target_pages;
  Changed();
  if (other) backend_->ConfigChanged();
}

void BalloonDevice::Changed() noexcept {
  changed_ = true;
  if (host_.NowMs() >= report_due_ms_) return SendReport();
  Schedule();
}

void BalloonDevice::SendReport() noexcept {
  report_.target_pages = config_.num_pages;
  report_.actual_pages = config_.actual;
  report_.poison_val = config_.poison_val;
  report_.poison_known = poison_known_ ? 1 : 0;
  report_.fresh = actual_known_ ? 0 : 1;
  if (host_.Send(report_)) changed_ = false;
  report_due_ms_ = host_.NowMs() + kReportMs;
  Schedule();
}

void BalloonDevice::Schedule() noexcept {
  std::optional<uint64_t> due = stats_due_ms_;
  if (changed_) due = std::min(due.value_or(report_due_ms_), report_due_ms_);
  if (due.has_value()) host_.WakeAt(*due);
}

void BalloonDevice::OnTimer() {
  const uint64_t now = host_.NowMs();
  if (stats_due_ms_.has_value() && now >= *stats_due_ms_) {
    stats_due_ms_ = now + uint64_t{options_.stats_seconds} * 1000;
    stats_wanted_ = true;
    backend_->Wake(vb::kStats);
  }
  if (changed_ && now >= report_due_ms_) return SendReport();
  Schedule();
}

std::vector<std::string> BalloonDeviceArguments(const BalloonOptions& options) {
  std::vector<std::string> arguments = {absl::StrCat("--target-pages=", options.target_pages)};
  if (options.stats_seconds != 0) arguments.push_back(absl::StrCat("--stats-seconds=", options.stats_seconds));
  if (!options.deflate_on_oom) arguments.emplace_back("--no-deflate-on-oom");
  if (!options.reporting) arguments.emplace_back("--no-reporting");
  return arguments;
}

}  // namespace vmm
