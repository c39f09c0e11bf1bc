#include "devices/virtio/block/block_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

namespace vb = virtio_blk;

constexpr uint64_t Burst(uint64_t per_second) { return std::max<uint64_t>(per_second / 10, 1); }

}  // namespace

BlockDevice::BlockDevice(std::unique_ptr<Disk> disk, const BlockOptions& options, Clock clock, Sleeper sleeper)
    : disk_(std::move(disk)),
      options_(options),
      clock_(std::move(clock)),
      sleeper_(std::move(sleeper)),
      bytes_bucket_(options.bytes_per_second, Burst(options.bytes_per_second)),
      operations_bucket_(options.operations_per_second, Burst(options.operations_per_second)) {
  features_ = vb::kFeatureSegMax | vb::kFeatureBlockSize | vb::kFeatureFlush;
  features_ |= options.read_only ? vb::kFeatureReadOnly : vb::kFeatureDiscard | vb::kFeatureWriteZeroes;
  if (options.queues > 1) features_ |= vb::kFeatureMq;
  config_.capacity = disk_->bytes() / vb::kSectorBytes;
  config_.seg_max = kMaxSegments;
  config_.blk_size = vb::kSectorBytes;
  config_.num_queues = options.queues;
  config_.max_discard_sectors = config_.max_write_zeroes_sectors = kMaxRequestBytes / vb::kSectorBytes;
  config_.max_discard_seg = config_.max_write_zeroes_seg = kMaxRanges;
  config_.discard_sector_alignment = 1;
  config_.write_zeroes_may_unmap = 1;
}

bool BlockDevice::Admit(uint64_t bytes, uint64_t now_ns) {
  uint64_t wait = operations_bucket_.Take(1, now_ns);
  if (wait == 0) {
    wait = bytes_bucket_.Take(bytes, now_ns);
    if (wait != 0) operations_bucket_.Return(1);
  }
  if (wait == 0) return true;
  if (!std::exchange(sleeping_, true)) sleeper_(wait);
  return false;
}

void BlockDevice::Resume() {
  sleeping_ = false;
  for (uint16_t i = 0; i < options_.queues; ++i) host_->Wake(i);
}

bool BlockDevice::Process(uint16_t, BackendQueue& queue) noexcept {
  uint64_t unnotified_since = 0;
  for (int i = 0; i < kQuantum; ++i) {
    if (queue.Pop(chain_) != BackendQueue::PopResult::kChain) return false;
    const uint64_t now = clock_();
    if (!Admit(chain_.readable_bytes + chain_.writable_bytes, now)) {
      queue.Unpop();
      return false;
    }
    vb::RequestHeader header{};
    const bool whole = chain_.Read(0, std::as_writable_bytes(std::span(&header, 1))) == sizeof(header);
    uint64_t written = 0;
    if (chain_.writable_bytes == 0) {
      // Nowhere to say how it went: it has not gone.
      queue.Push(chain_, 0);
    } else {
      const uint8_t status = whole ? Do(header, written) : vb::kStatusError;
      chain_.Write(chain_.writable_bytes - 1, std::as_bytes(std::span(&status, 1)));
      // The status is the last byte: "from its start" holds where all before it was written.
      const bool full = written == chain_.writable_bytes - 1;
      queue.Push(chain_, static_cast<uint32_t>(full ? chain_.writable_bytes : written));
    }
    if (unnotified_since == 0) unnotified_since = now;
    if (clock_() - unnotified_since >= kNotifyNs) {
      queue.Notify();
      unnotified_since = 0;
    }
  }
  return true;
}

bool BlockDevice::InDisk(uint64_t sector, uint64_t bytes) const noexcept {
  const uint64_t sectors = bytes / vb::kSectorBytes;
  return bytes % vb::kSectorBytes == 0 && sector <= config_.capacity && sectors <= config_.capacity - sector;
}

uint8_t BlockDevice::Do(const vb::RequestHeader& header, uint64_t& written) noexcept {
  switch (header.type) {
    case vb::kIn: return ReadOrWrite(header, false, written);
    case vb::kOut: return options_.read_only ? vb::kStatusError : ReadOrWrite(header, true, written);
    case vb::kFlush: return disk_->Flush() ? vb::kStatusOk : vb::kStatusError;
    case vb::kGetId: return GetId(written);
    case vb::kDiscard: return options_.read_only ? vb::kStatusUnsupported : DoRanges(false);
    case vb::kWriteZeroes: return options_.read_only ? vb::kStatusUnsupported : DoRanges(true);
    default: return vb::kStatusUnsupported;
  }
}

void BlockDevice::SliceVectors(const std::vector<iovec>& from, uint64_t skip, uint64_t bytes) {
  vectors_.clear();
  for (const iovec& vector : from) {
    if (bytes == 0) break;
    if (skip >= vector.iov_len) {
      skip -= vector.iov_len;
      continue;
    }
    const size_t part = std::min<uint64_t>(vector.iov_len - skip, bytes);
    vectors_.push_back({static_cast<std::byte*>(vector.iov_base) + skip, part});
    bytes -= part;
    skip = 0;
  }
}

uint8_t BlockDevice::ReadOrWrite(const vb::RequestHeader& header, bool write, uint64_t& written) noexcept {
  const uint64_t bytes = write ? chain_.readable_bytes - sizeof(header) : chain_.writable_bytes - 1;
  if (bytes == 0 || bytes > kMaxRequestBytes || !InDisk(header.sector, bytes)) return vb::kStatusError;
  const uint64_t offset = header.sector * vb::kSectorBytes;
  if (!write) {
    SliceVectors(chain_.writable, 0, bytes);
    if (!disk_->Read(offset, vectors_)) return vb::kStatusError;
    written = bytes;
    return vb::kStatusOk;
  }
  SliceVectors(chain_.readable, sizeof(header), bytes);
  if (!disk_->Write(offset, vectors_)) return vb::kStatusError;
  return flush_accepted_ || disk_->Flush() ? vb::kStatusOk : vb::kStatusError;
}

uint8_t BlockDevice::DoRanges(bool zeroes) noexcept {
  const uint64_t bytes = chain_.readable_bytes - sizeof(vb::RequestHeader);
  std::array<vb::Range, kMaxRanges> ranges{};
  if (bytes == 0 || bytes % sizeof(vb::Range) != 0 || bytes > sizeof(ranges)) return vb::kStatusError;
  chain_.Read(sizeof(vb::RequestHeader), std::as_writable_bytes(std::span(ranges)).first(bytes));
  const auto asked = std::span(ranges).first(bytes / sizeof(vb::Range));
  // All are checked before the first is done.
  for (const vb::Range& range : asked) {
    const uint32_t known = zeroes ? vb::kRangeUnmap : 0;
    if ((range.flags & ~known) != 0) return vb::kStatusUnsupported;
    const uint64_t range_bytes = uint64_t{range.sectors} * vb::kSectorBytes;
    if (range_bytes > kMaxRequestBytes || !InDisk(range.sector, range_bytes)) return vb::kStatusError;
  }
  for (const vb::Range& range : asked) {
    if (range.sectors == 0) continue;
    const uint64_t offset = range.sector * vb::kSectorBytes;
    const uint64_t range_bytes = uint64_t{range.sectors} * vb::kSectorBytes;
    const bool done = zeroes ? disk_->WriteZeroes(offset, range_bytes, (range.flags & vb::kRangeUnmap) != 0) : disk_->Discard(offset, range_bytes);
    if (!done) return vb::kStatusError;
  }
  // Discarded data may be anything; zeroes are a write.
  return !zeroes || flush_accepted_ || disk_->Flush() ? vb::kStatusOk : vb::kStatusError;
}

uint8_t BlockDevice::GetId(uint64_t& written) noexcept {
  std::array<char, vb::kIdBytes> id{};
  options_.serial.copy(id.data(), id.size());
  if (chain_.writable_bytes - 1 < id.size()) return vb::kStatusError;
  written = chain_.Write(0, std::as_bytes(std::span(id)));
  return vb::kStatusOk;
}

std::vector<std::string> BlockDeviceArguments(const BlockOptions& options) {
  std::vector<std::string> arguments = {absl::StrCat("--queues=", options.queues)};
  if (options.read_only) arguments.push_back("--read-only");
  if (!options.serial.empty()) arguments.push_back(absl::StrCat("--serial=", options.serial));
  if (options.bytes_per_second != 0) arguments.push_back(absl::StrCat("--bytes-per-second=", options.bytes_per_second));
  if (options.operations_per_second != 0) arguments.push_back(absl::StrCat("--operations-per-second=", options.operations_per_second));
  return arguments;
}

}  // namespace vmm
