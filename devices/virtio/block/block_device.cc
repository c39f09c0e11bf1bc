#include "devices/virtio/block/block_device.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {
namespace {

namespace vb = virtio_blk;

constexpr uint64_t Burst(uint64_t per_second) { return std::max<uint64_t>(per_second / 10, 1); }

}  // namespace

BlockDevice::BlockDevice(std::unique_ptr<Disk> disk, const BlockOptions& options, Clock clock, Sleeper sleeper,
                         std::unique_ptr<DiskWorkers> workers)
    : disk_(std::move(disk)),
      options_(options),
      clock_(std::move(clock)),
      sleeper_(std::move(sleeper)),
      bytes_bucket_(options.bytes_per_second, Burst(options.bytes_per_second)),
      operations_bucket_(options.operations_per_second, Burst(options.operations_per_second)),
      queues_(options.queues),
      workers_(std::move(workers)) {
  features_ = vb::kFeatureSegMax | vb::kFeatureBlockSize | vb::kFeatureFlush | vb::kFeatureTopology;
  features_ |= options.read_only ? vb::kFeatureReadOnly : vb::kFeatureDiscard | vb::kFeatureWriteZeroes;
  if (options.queues > 1) features_ |= vb::kFeatureMq;
  if (options.packed) features_ |= virtio::kFeatureRingPacked;
  config_.capacity = disk_->bytes() / vb::kSectorBytes;
  config_.seg_max = kMaxSegments;
  config_.blk_size = vb::kSectorBytes;
  config_.num_queues = options.queues;
  config_.max_discard_sectors = config_.max_write_zeroes_sectors = kMaxRequestBytes / vb::kSectorBytes;
  config_.max_discard_seg = config_.max_write_zeroes_seg = kMaxRanges;
  // Any sector can be read and written; whoever looks for speed stays with whole blocks of the host's.
  const uint32_t block_sectors = disk_->block_bytes() / vb::kSectorBytes;
  config_.topology.physical_block_exp = static_cast<uint8_t>(std::countr_zero(block_sectors));
  config_.topology.min_io_size = static_cast<uint16_t>(block_sectors);
  // Less than a block would be written as zeroes, and free nothing.
  config_.discard_sector_alignment = block_sectors;
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

bool BlockDevice::Process(uint16_t index, BackendQueue& queue) noexcept {
  queues_[index].ring = &queue;
  queues_[index].waits = false;
  uint64_t unnotified_since = 0;
  for (int i = 0; i < kQuantum; ++i) {
    if (free_.empty()) {
      if (requests_.size() == kMaxInFlight) {
        queues_[index].waits = true;
        return false;
      }
      requests_.push_back(std::make_unique<Request>(*this));
      free_.push_back(requests_.back().get());
    }
    Request& request = *free_.back();
    if (queue.Pop(request.chain) != BackendQueue::PopResult::kChain) return false;
    const uint64_t now = clock_();
    if (!Admit(request.chain.readable_bytes + request.chain.writable_bytes, now)) {
      queue.Unpop(request.chain);
      return false;
    }
    free_.pop_back();
    request.queue = index;
    ++queues_[index].in_flight;
    const bool whole = request.chain.Read(0, std::as_writable_bytes(std::span(&request.header, 1))) == sizeof(request.header);
    if (!Begin(request, whole)) continue;
    Finish(request);
    if (unnotified_since == 0) unnotified_since = now;
    if (clock_() - unnotified_since >= kNotifyNs) {
      queue.Notify();
      unnotified_since = 0;
    }
  }
  return true;
}

bool BlockDevice::Begin(Request& request, bool whole) noexcept {
  request.written = 0;
  request.status = vb::kStatusError;
  request.durable = !flush_accepted_;
  // Nowhere to say how it went: it does not go.
  if (request.chain.writable_bytes == 0 || !whole || !Prepare(request)) return true;
  bool now = workers_ == nullptr;
  switch (request.header.type) {
    case vb::kIn:
      if (now || !disk_->ReadNow(request.header.sector * vb::kSectorBytes, request.vectors)) break;
      request.status = vb::kStatusOk;
      return true;
    case vb::kOut:
      // Into the page cache, as a rule: a copy, which costs less than handing it over.
      if (slow_writes_ > 0) {
        --slow_writes_;
      } else if (!request.durable) {
        now = true;
      }
      break;
    case vb::kGetId: now = true; break;
    default: break;
  }
  if (!now) {
    workers_->Submit(request);
    return false;
  }
  const bool watched = request.header.type == vb::kOut && workers_ != nullptr && !disk_->in_memory();
  const uint64_t before = watched ? clock_() : 0;
  request.status = Do(request);
  if (watched && clock_() - before >= kSlowWriteNs + request.chain.readable_bytes) slow_writes_ = kSlowWrites;
  return true;
}

void BlockDevice::Finish(Request& request) noexcept {
  Queue& queue = queues_[request.queue];
  QueueChain& chain = request.chain;
  --queue.in_flight;
  free_.push_back(&request);
  if (chain.writable_bytes == 0) return queue.ring->Push(chain, 0);
  chain.Write(chain.writable_bytes - 1, std::as_bytes(std::span(&request.status, 1)));
  if (request.status != vb::kStatusOk) request.written = 0;
  // The status is the last byte: "from its start" holds where all before it was written.
  const bool full = request.written == chain.writable_bytes - 1;
  queue.ring->Push(chain, static_cast<uint32_t>(full ? chain.writable_bytes : request.written));
}

void BlockDevice::Reap() noexcept {
  while (DiskWorkers::Job* const job = workers_->TakeDone()) Finish(static_cast<Request&>(*job));
}

void BlockDevice::OnDone() {
  Reap();
  for (uint16_t i = 0; i < options_.queues; ++i) {
    if (queues_[i].ring == nullptr) continue;
    queues_[i].ring->Notify();
    if (queues_[i].waits) host_->Wake(i);
  }
}

void BlockDevice::OnQueueStopped(uint16_t index) noexcept {
  while (queues_[index].in_flight != 0) {
    workers_->AwaitDone();
    Reap();
  }
  // Others' completions came along.
  for (const Queue& queue : queues_) {
    if (queue.ring != nullptr) queue.ring->Notify();
  }
  queues_[index] = Queue{};
}

bool BlockDevice::InDisk(uint64_t sector, uint64_t bytes) const noexcept {
  const uint64_t sectors = bytes / vb::kSectorBytes;
  return bytes % vb::kSectorBytes == 0 && sector <= config_.capacity && sectors <= config_.capacity - sector;
}

bool BlockDevice::Prepare(Request& request) noexcept {
  const bool changes = request.header.type == vb::kDiscard || request.header.type == vb::kWriteZeroes;
  switch (request.header.type) {
    case vb::kIn: return PrepareData(request, /*write=*/false);
    case vb::kOut: return !options_.read_only && PrepareData(request, /*write=*/true);
    case vb::kFlush: return true;
    case vb::kGetId: return request.chain.writable_bytes - 1 >= vb::kIdBytes;
    default: break;
  }
  if (changes && !options_.read_only) return PrepareRanges(request, request.header.type == vb::kWriteZeroes);
  request.status = vb::kStatusUnsupported;
  return false;
}

bool BlockDevice::PrepareData(Request& request, bool write) noexcept {
  const QueueChain& chain = request.chain;
  uint64_t left = write ? chain.readable_bytes - sizeof(request.header) : chain.writable_bytes - 1;
  if (left == 0 || left > kMaxRequestBytes || !InDisk(request.header.sector, left)) return false;
  uint64_t skip = write ? sizeof(request.header) : 0;
  request.written = write ? 0 : left;
  request.vectors.clear();
  for (const iovec& vector : write ? chain.readable : chain.writable) {
    if (left == 0) break;
    if (skip >= vector.iov_len) {
      skip -= vector.iov_len;
      continue;
    }
    const size_t part = std::min<uint64_t>(vector.iov_len - skip, left);
    request.vectors.push_back({static_cast<std::byte*>(vector.iov_base) + skip, part});
    left -= part;
    skip = 0;
  }
  return true;
}

bool BlockDevice::PrepareRanges(Request& request, bool zeroes) noexcept {
  const uint64_t bytes = request.chain.readable_bytes - sizeof(request.header);
  if (bytes == 0 || bytes % sizeof(vb::Range) != 0 || bytes > sizeof(request.ranges)) return false;
  request.chain.Read(sizeof(request.header), std::as_writable_bytes(std::span(request.ranges)).first(bytes));
  request.range_count = bytes / sizeof(vb::Range);
  // All are checked before the first is done.
  for (const vb::Range& range : std::span(request.ranges).first(request.range_count)) {
    const uint32_t known = zeroes ? vb::kRangeUnmap : 0;
    if ((range.flags & ~known) != 0) {
      request.status = vb::kStatusUnsupported;
      return false;
    }
    const uint64_t range_bytes = uint64_t{range.sectors} * vb::kSectorBytes;
    if (range_bytes > kMaxRequestBytes || !InDisk(range.sector, range_bytes)) return false;
  }
  return true;
}

uint8_t BlockDevice::Do(Request& request) noexcept {
  const uint64_t offset = request.header.sector * vb::kSectorBytes;
  bool done = false;
  switch (request.header.type) {
    case vb::kIn: done = disk_->Read(offset, request.vectors); break;
    case vb::kOut: done = disk_->Write(offset, request.vectors) && (!request.durable || disk_->Flush()); break;
    case vb::kFlush: done = disk_->Flush(); break;
    case vb::kGetId:
      GetId(request);
      done = true;
      break;
    default: done = DoRanges(request); break;
  }
  return done ? vb::kStatusOk : vb::kStatusError;
}

bool BlockDevice::DoRanges(Request& request) noexcept {
  const bool zeroes = request.header.type == vb::kWriteZeroes;
  for (const vb::Range& range : std::span(request.ranges).first(request.range_count)) {
    if (range.sectors == 0) continue;
    const uint64_t offset = range.sector * vb::kSectorBytes;
    const uint64_t bytes = uint64_t{range.sectors} * vb::kSectorBytes;
    if (!(zeroes ? disk_->WriteZeroes(offset, bytes, (range.flags & vb::kRangeUnmap) != 0) : disk_->Discard(offset, bytes))) return false;
  }
  // Discarded data may be anything; zeroes are a write.
  return !zeroes || !request.durable || disk_->Flush();
}

void BlockDevice::GetId(Request& request) noexcept {
  std::array<char, vb::kIdBytes> id{};
  options_.serial.copy(id.data(), id.size());
  request.written = request.chain.Write(0, std::as_bytes(std::span(id)));
}

std::vector<std::string> BlockDeviceArguments(const BlockOptions& options) {
  std::vector<std::string> arguments = {absl::StrCat("--queues=", options.queues)};
  if (options.workers != BlockOptions{}.workers) arguments.push_back(absl::StrCat("--workers=", options.workers));
  if (!options.packed) arguments.push_back("--split-rings");
  if (options.read_only) arguments.push_back("--read-only");
  if (!options.serial.empty()) arguments.push_back(absl::StrCat("--serial=", options.serial));
  if (options.bytes_per_second != 0) arguments.push_back(absl::StrCat("--bytes-per-second=", options.bytes_per_second));
  if (options.operations_per_second != 0) arguments.push_back(absl::StrCat("--operations-per-second=", options.operations_per_second));
  return arguments;
}

}  // namespace vmm
