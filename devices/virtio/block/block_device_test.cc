#include "devices/virtio/block/block_device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/base/thread_annotations.h"
#include "base/event_fd.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/block/block_layout.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/block/disk_workers.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

namespace vb = virtio_blk;

// In memory, counting.
class FakeDisk final : public Disk {
 public:
  explicit FakeDisk(size_t size) : content(size, '.') {}
  uint64_t bytes() const noexcept override { return content.size(); }
  uint32_t block_bytes() const noexcept override { return 4096; }
  bool Read(uint64_t offset, std::span<iovec> vectors) noexcept override {
    for (const iovec& vector : vectors) {
      std::memcpy(vector.iov_base, content.data() + offset, vector.iov_len);
      offset += vector.iov_len;
    }
    return works;
  }
  bool Write(uint64_t offset, std::span<iovec> vectors) noexcept override {
    for (const iovec& vector : vectors) {
      std::memcpy(content.data() + offset, vector.iov_base, vector.iov_len);
      offset += vector.iov_len;
    }
    ++writes;
    return works;
  }
  bool Flush() noexcept override {
    ++flushes;
    return works;
  }
  bool Discard(uint64_t offset, uint64_t bytes) noexcept override {
    content.replace(offset, bytes, bytes, 'd');
    return works;
  }
  bool WriteZeroes(uint64_t offset, uint64_t bytes, bool may_unmap) noexcept override {
    content.replace(offset, bytes, bytes, may_unmap ? 'u' : 'z');
    return works;
  }
  std::string content;
  bool works = true;
  int writes = 0;
  int flushes = 0;
};

// One whose reads and flushes wait until the test lets them go: what is not in the page cache.
class SlowDisk final : public Disk {
 public:
  uint64_t bytes() const noexcept override { return 64 * 512; }
  bool ReadNow(uint64_t, std::span<iovec>) noexcept override { return false; }
  bool Read(uint64_t offset, std::span<iovec> vectors) noexcept override {
    Wait(offset / 512);
    for (const iovec& vector : vectors) std::memset(vector.iov_base, static_cast<int>('0' + offset / 512), vector.iov_len);
    return true;
  }
  bool Write(uint64_t offset, std::span<iovec>) noexcept override {
    last_writer = std::this_thread::get_id();
    if (on_write) on_write(offset);
    return true;
  }
  std::function<void(uint64_t)> on_write;
  std::thread::id last_writer;
  bool Flush() noexcept override {
    Wait(kFlush);
    return true;
  }
  bool Discard(uint64_t, uint64_t) noexcept override { return true; }
  bool WriteZeroes(uint64_t, uint64_t, bool) noexcept override { return true; }

  static constexpr uint64_t kFlush = 1000;
  void Let(uint64_t what) {
    MutexLock lock(mutex_);
    let_.insert(what);
    changed_.notify_all();
  }
  void LetAll() {
    MutexLock lock(mutex_);
    all_ = true;
    changed_.notify_all();
  }

 private:
  void Wait(uint64_t what) {
    MutexLock lock(mutex_);
    while (!all_ && let_.count(what) == 0) changed_.wait(mutex_);
  }
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::set<uint64_t> let_ ABSL_GUARDED_BY(mutex_);
  bool all_ ABSL_GUARDED_BY(mutex_) = false;
};

class BlockDeviceTest : public testing::Test, public BackendHost {
 protected:
  static constexpr size_t kDiskBytes = 64 * 512;

  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    queue_.Start(driver_.Rings(memory_), 0, 0, memory_, &call_);
    Make({});
  }
  void Make(const BlockOptions& options) {
    auto disk = std::make_unique<FakeDisk>(kDiskBytes);
    disk_ = disk.get();
    device_ = std::make_unique<BlockDevice>(std::move(disk), options, [this] { return now_; }, [this](uint64_t ns) { slept_ = ns; });
    device_->OnHost(*this);
    device_->OnFeatures(device_->features());
  }
  void ConfigChanged() override {}
  void Wake(uint16_t) override { (void)device_->Process(0, queue_); }

  Gpa header() const { return driver_.data(); }
  Gpa data() const { return driver_.data() + 0x1000; }
  Gpa status() const { return driver_.data() + 0x800; }
  void Put(uint32_t type, uint64_t sector) {
    ram_.Word<vb::RequestHeader>(header()) = {type, 0, sector};
    ram_.Word<uint8_t>(status()) = 0xee;
  }
  // One request from header to status; the number of bytes used. The status is looked at by Status.
  std::optional<uint32_t> Do(uint32_t type, uint64_t sector, std::vector<FakeGuestDriver::Segment> segments) {
    Put(type, sector);
    segments.insert(segments.begin(), {header(), sizeof(vb::RequestHeader)});
    segments.push_back({status(), 1, true});
    driver_.Offer(segments);
    (void)device_->Process(0, queue_);
    const auto used = driver_.Take();
    return used.has_value() ? std::optional(used->bytes) : std::nullopt;
  }
  int Status() { return ram_.Word<uint8_t>(status()); }
  vb::Config Config() {
    vb::Config config{};
    std::memcpy(&config, device_->config().data(), device_->config().size());
    return config;
  }

  FakeGuestRam ram_;
  FakeGuestDriver driver_{ram_, 16};
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  BackendQueue queue_;
  FakeDisk* disk_ = nullptr;
  std::unique_ptr<BlockDevice> device_;
  uint64_t now_ = 1'000'000'000;
  std::optional<uint64_t> slept_;
};

TEST_F(BlockDeviceTest, ReadsAndWritesGoWhereTheSectorSays) {
  ram_.Put(data(), std::string(1024, 'w'));
  EXPECT_EQ(Do(vb::kOut, 3, {{data(), 700}, {data() + 700, 324}}), 1u);
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(disk_->content.substr(3 * 512 - 1, 1026), "." + std::string(1024, 'w') + ".");
  EXPECT_EQ(Do(vb::kIn, 2, {{data() + 0x1000, 512, true}, {data() + 0x2000, 512, true}}), 1025u);
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(ram_.Get(data() + 0x1000, 512), std::string(512, '.'));
  EXPECT_EQ(ram_.Get(data() + 0x2000, 512), std::string(512, 'w'));
}

TEST_F(BlockDeviceTest, HeaderDataAndStatusMayBeCutAnyhow) {
  Put(vb::kOut, 1);
  ram_.Put(data(), std::string(512, 'x'));
  // The header in two, the second half with the data behind it in one segment.
  std::memcpy(ram_.At(data() + 0x1000), ram_.At(header() + 8), 8);
  ram_.Put(data() + 0x1008, std::string(512, 'x'));
  driver_.Offer({{header(), 8}, {data() + 0x1000, 8 + 512}, {status(), 1, true}});
  (void)device_->Process(0, queue_);
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(disk_->content.substr(512, 512), std::string(512, 'x'));
}

TEST_F(BlockDeviceTest, WhatIsNotOnTheDiskIsAnErrorAndTouchesNothing) {
  for (const uint64_t sector : {uint64_t{64}, uint64_t{63}, std::numeric_limits<uint64_t>::max(), std::numeric_limits<uint64_t>::max() / 512}) {
    EXPECT_EQ(Do(vb::kOut, sector, {{data(), 1024}}), 1u) << sector;
    EXPECT_EQ(Status(), vb::kStatusError);
    Do(vb::kIn, sector, {{data(), 1024, true}});
    EXPECT_EQ(Status(), vb::kStatusError);
  }
  Do(vb::kOut, 0, {{data(), 511}});
  EXPECT_EQ(Status(), vb::kStatusError);
  Do(vb::kOut, 0, {});
  EXPECT_EQ(Status(), vb::kStatusError);
  EXPECT_EQ(disk_->writes, 0);
}

TEST_F(BlockDeviceTest, ARequestWithoutAHeaderOrAStatusIsGivenBack) {
  driver_.Offer({{header(), 4}, {status(), 1, true}});
  Put(vb::kFlush, 0);
  (void)device_->Process(0, queue_);
  EXPECT_EQ(Status(), vb::kStatusError);
  EXPECT_TRUE(driver_.Take().has_value());
  Put(vb::kOut, 0);
  driver_.Offer({{header(), 16}, {data(), 512}});
  (void)device_->Process(0, queue_);
  const auto used = driver_.Take();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->bytes, 0u);
  EXPECT_EQ(disk_->writes, 0);
}

TEST_F(BlockDeviceTest, AFlushIsOneAndAWriteIsNoneUnlessTheDriverKnowsNoFlush) {
  Do(vb::kOut, 0, {{data(), 512}});
  EXPECT_EQ(disk_->flushes, 0);
  EXPECT_EQ(Do(vb::kFlush, 0, {}), 1u);
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(disk_->flushes, 1);
  device_->OnFeatures(device_->features() & ~vb::kFeatureFlush);
  Do(vb::kOut, 0, {{data(), 512}});
  EXPECT_EQ(disk_->flushes, 2);
}

TEST_F(BlockDeviceTest, AFailingHostIsAnError) {
  disk_->works = false;
  Do(vb::kOut, 0, {{data(), 512}});
  EXPECT_EQ(Status(), vb::kStatusError);
  Do(vb::kIn, 0, {{data(), 512, true}});
  EXPECT_EQ(Status(), vb::kStatusError);
  Do(vb::kFlush, 0, {});
  EXPECT_EQ(Status(), vb::kStatusError);
}

TEST_F(BlockDeviceTest, AReadOnlyDiskIsNeverWritten) {
  Make({.read_only = true});
  EXPECT_NE(device_->features() & vb::kFeatureReadOnly, 0u);
  EXPECT_EQ(device_->features() & (vb::kFeatureDiscard | vb::kFeatureWriteZeroes), 0u);
  Do(vb::kOut, 0, {{data(), 512}});
  EXPECT_EQ(Status(), vb::kStatusError);
  ram_.Word<vb::Range>(data()) = {0, 1, 0};
  Do(vb::kDiscard, 0, {{data(), 16}});
  EXPECT_EQ(Status(), vb::kStatusUnsupported);
  Do(vb::kWriteZeroes, 0, {{data(), 16}});
  EXPECT_EQ(Status(), vb::kStatusUnsupported);
  EXPECT_EQ(disk_->content, std::string(kDiskBytes, '.'));
}

TEST_F(BlockDeviceTest, RangesAreDiscardedAndZeroed) {
  ram_.Word<vb::Range>(data()) = {1, 2, 0};
  ram_.Word<vb::Range>(data() + 16) = {8, 1, 0};
  Do(vb::kDiscard, 0, {{data(), 32}});
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(disk_->content.substr(512, 1024), std::string(1024, 'd'));
  EXPECT_EQ(disk_->content[8 * 512], 'd');
  Do(vb::kWriteZeroes, 0, {{data(), 16}});
  EXPECT_EQ(disk_->content[512], 'z');
  ram_.Word<vb::Range>(data()) = {4, 1, vb::kRangeUnmap};
  Do(vb::kWriteZeroes, 0, {{data(), 16}});
  EXPECT_EQ(disk_->content[4 * 512], 'u');
}

TEST_F(BlockDeviceTest, RangesAreAllCheckedBeforeTheFirstIsDone) {
  const vb::Range good{0, 1, 0};
  const vb::Range bad[] = {{64, 1, 0}, {63, 2, 0}, {std::numeric_limits<uint64_t>::max(), 1, 0}, {0, 0xffff'ffff, 0}};
  for (const vb::Range& range : bad) {
    ram_.Word<vb::Range>(data()) = good;
    ram_.Word<vb::Range>(data() + 16) = range;
    Do(vb::kDiscard, 0, {{data(), 32}});
    EXPECT_EQ(Status(), vb::kStatusError);
  }
  ram_.Word<vb::Range>(data() + 16) = {0, 1, vb::kRangeUnmap};
  Do(vb::kDiscard, 0, {{data(), 32}});
  EXPECT_EQ(Status(), vb::kStatusUnsupported);
  ram_.Word<vb::Range>(data() + 16) = {0, 1, 2};
  Do(vb::kWriteZeroes, 0, {{data(), 32}});
  EXPECT_EQ(Status(), vb::kStatusUnsupported);
  Do(vb::kDiscard, 0, {{data(), 15}});
  EXPECT_EQ(Status(), vb::kStatusError);
  Do(vb::kDiscard, 0, {{data(), 17 * 16}});
  EXPECT_EQ(Status(), vb::kStatusError);
  EXPECT_EQ(disk_->content, std::string(kDiskBytes, '.'));
}

TEST_F(BlockDeviceTest, TheSerialIsTwentyBytes) {
  Make({.serial = "disk-0"});
  EXPECT_EQ(Do(vb::kGetId, 0, {{data(), 20, true}}), 21u);
  EXPECT_EQ(ram_.Get(data(), 20), std::string("disk-0") + std::string(14, '\0'));
  Do(vb::kGetId, 0, {{data(), 19, true}});
  EXPECT_EQ(Status(), vb::kStatusError);
}

TEST_F(BlockDeviceTest, UnknownTypesAreUnsupported) {
  for (const uint32_t type : {2u, 3u, 9u, 10u, 12u, 14u, 0xffff'ffffu}) {
    Do(type, 0, {{data(), 512}});
    EXPECT_EQ(Status(), vb::kStatusUnsupported) << type;
  }
}

TEST_F(BlockDeviceTest, ConfigurationSaysWhatThereIs) {
  Make({.queues = 4});
  EXPECT_EQ(Config().capacity, 64u);
  EXPECT_EQ(Config().num_queues, 4);
  EXPECT_NE(device_->features() & vb::kFeatureMq, 0u);
  EXPECT_EQ(device_->queue_count(), 4);
  EXPECT_NE(device_->features() & vb::kFeatureTopology, 0u);
  EXPECT_EQ(Config().blk_size, 512u);
  EXPECT_EQ(Config().topology.physical_block_exp, 3);
  EXPECT_EQ(Config().topology.min_io_size, 8);
  EXPECT_EQ(Config().discard_sector_alignment, 8u);
}

TEST_F(BlockDeviceTest, ALimitMakesRequestsWaitAndLosesNone) {
  Make({.operations_per_second = 10});  // a burst of one
  Do(vb::kFlush, 0, {});
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(Do(vb::kFlush, 0, {}), std::nullopt);
  ASSERT_TRUE(slept_.has_value());
  EXPECT_EQ(Status(), 0xee);
  now_ += *slept_;
  device_->Resume();
  EXPECT_EQ(Status(), vb::kStatusOk);
  EXPECT_EQ(disk_->flushes, 2);
}

TEST_F(BlockDeviceTest, AQuantumIsNotExceeded) {
  Put(vb::kFlush, 0);
  // More than a quantum cannot be in a queue of 16: the driver puts more in while the device works, so ask twice.
  for (int i = 0; i < 5; ++i) driver_.Offer({{header(), 16}, {status(), 1, true}});
  EXPECT_FALSE(device_->Process(0, queue_));
  EXPECT_EQ(disk_->flushes, 5);
}

// What waits for the disk, by workers.
class WaitingBlockDeviceTest : public BlockDeviceTest {
 protected:
  void SetUp() override {
    BlockDeviceTest::SetUp();
    auto disk = std::make_unique<SlowDisk>();
    slow_ = disk.get();
    ASSERT_OK_AND_ASSIGN(auto workers, DiskWorkers::Create(4));
    done_fd_ = workers->done_fd();
    device_ = std::make_unique<BlockDevice>(std::move(disk), BlockOptions{}, [this] { return now_; }, [](uint64_t) {}, std::move(workers));
    device_->OnHost(*this);
    device_->OnFeatures(device_->features());
  }
  // Without this one a test that fails would wait for ever.
  void TearDown() override { slow_->LetAll(); }
  // Of 512 bytes, in a place of its own.
  uint16_t Read(uint64_t sector) {
    const Gpa at = driver_.data() + 0x4000 + 0x1000 * sector;
    ram_.Word<vb::RequestHeader>(at) = {vb::kIn, 0, sector};
    return driver_.Offer({{at, 16}, {at + 0x200, 512, true}, {at + 0x100, 1, true}});
  }
  uint16_t Flush() {
    const Gpa at = driver_.data() + 0x2000;
    ram_.Word<vb::RequestHeader>(at) = {vb::kFlush, 0, 0};
    return driver_.Offer({{at, 16}, {at + 0x100, 1, true}});
  }
  std::string Content(uint64_t sector) { return ram_.Get(driver_.data() + 0x4000 + 0x1000 * sector + 0x200, 512); }
  virtio::UsedElement AwaitUsed() {
    while (true) {
      if (const auto used = driver_.Take()) return *used;
      pollfd ready{done_fd_, POLLIN, 0};
      ::poll(&ready, 1, -1);
      device_->OnDone();
    }
  }
  SlowDisk* slow_ = nullptr;
  int done_fd_ = -1;
};

TEST_F(WaitingBlockDeviceTest, RequestsDoNotWaitForEachOther) {
  const uint16_t first = Read(1), second = Read(2), flush = Flush();
  EXPECT_FALSE(device_->Process(0, queue_));
  slow_->Let(2);
  EXPECT_EQ(AwaitUsed(), (virtio::UsedElement{second, 513}));
  EXPECT_EQ(Content(2), std::string(512, '2'));
  slow_->Let(SlowDisk::kFlush);
  EXPECT_EQ(AwaitUsed(), (virtio::UsedElement{flush, 1}));
  // What needs no waiting goes past all of them.
  EXPECT_EQ(Do(vb::kGetId, 0, {{data(), 20, true}}), 21u);
  slow_->Let(1);
  EXPECT_EQ(AwaitUsed(), (virtio::UsedElement{first, 513}));
}

TEST_F(WaitingBlockDeviceTest, AQueueThatStopsHasNothingInFlight) {
  const uint16_t first = Read(1), second = Read(2);
  EXPECT_FALSE(device_->Process(0, queue_));
  slow_->LetAll();
  device_->OnQueueStopped(0);
  const auto one = driver_.Take(), two = driver_.Take();
  ASSERT_TRUE(one.has_value() && two.has_value());
  EXPECT_EQ(one->id + two->id, first + second);
  EXPECT_EQ(driver_.used_index(), queue_.Stop());
}

TEST_F(WaitingBlockDeviceTest, AWriteThatWasHeldBackSendsTheNextOnesToWorkers) {
  const auto write = [&] {
    Put(vb::kOut, 0);
    driver_.Offer({{header(), 16}, {data(), 512}, {status(), 1, true}});
    (void)device_->Process(0, queue_);
    (void)AwaitUsed();
    return slow_->last_writer == std::this_thread::get_id();
  };
  EXPECT_TRUE(write());
  slow_->on_write = [&](uint64_t) { now_ += BlockDevice::kSlowWriteNs + 4096; };
  EXPECT_TRUE(write());
  slow_->on_write = nullptr;
  for (int i = 0; i < BlockDevice::kSlowWrites; ++i) EXPECT_FALSE(write()) << i;
  EXPECT_TRUE(write());
}

TEST_F(WaitingBlockDeviceTest, MoreThanFitInFlightWaitAndNoneIsLost) {
  // A driver with a queue so large has one descriptor a request: header and status in one indirect table.
  FakeGuestDriver many(ram_, 128);
  BackendQueue queue;
  std::memset(ram_.At(many.descriptors()), 0, 0x3000);
  queue.Start(many.Rings(memory_), 0, virtio::kFeatureIndirectDesc, memory_, &call_);
  const Gpa at = many.data() + 0x2000;
  ram_.Word<vb::RequestHeader>(at) = {vb::kFlush, 0, 0};
  constexpr int kCount = 100;
  for (int i = 0; i < kCount; ++i) {
    many.OfferIndirect(at + 0x1000, {{at.raw(), 16, virtio::kDescriptorNext, 1}, {(at + 0x100).raw(), 1, virtio::kDescriptorWrite, 0}});
  }
  while (device_->Process(0, queue)) continue;
  slow_->LetAll();
  std::set<uint32_t> heads;
  while (heads.size() < kCount) {
    if (const auto used = many.Take()) {
      EXPECT_TRUE(heads.insert(used->id).second);
      continue;
    }
    pollfd ready{done_fd_, POLLIN, 0};
    ::poll(&ready, 1, -1);
    device_->OnDone();
    (void)device_->Process(0, queue);
  }
  device_->OnQueueStopped(0);
  EXPECT_EQ(many.Take(), std::nullopt);
}

TEST(RawDiskTest, ReadNowHasWhatIsInTheCacheAndNothingBehindTheEnd) {
  std::string path = std::string(::getenv("TEST_TMPDIR") != nullptr ? ::getenv("TEST_TMPDIR") : "/tmp") + "/disk.XXXXXX";
  OwnedFd fd(::mkostemp(path.data(), O_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  ::unlink(path.c_str());
  const std::string content(8192, 'c');
  ASSERT_EQ(::write(fd.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Disk> disk, OpenRawDisk(std::move(fd)));
  std::string back(4096, '-');
  std::vector<iovec> vectors = {{back.data(), 4096}};
  if (disk->ReadNow(0, vectors)) {  // not every file system can tell
    EXPECT_EQ(back, std::string(4096, 'c'));
  }
  EXPECT_FALSE(disk->ReadNow(8000, vectors));
  EXPECT_EQ(vectors[0].iov_len, 4096u);
}

TEST(RawDiskTest, AFileIsReadWrittenPunchedAndZeroed) {
  OwnedFd fd(::memfd_create("disk", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), 8192 + 100), 0);
  const int raw = fd.get();
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Disk> disk, OpenRawDisk(std::move(fd)));
  EXPECT_EQ(disk->bytes(), 8292u);
  std::string text(6000, 'a');
  std::vector<iovec> vectors = {{text.data(), 1000}, {text.data() + 1000, 5000}};
  EXPECT_TRUE(disk->Write(512, vectors));
  std::string back(6000, '-');
  vectors = {{back.data(), 5999}, {back.data() + 5999, 1}};
  EXPECT_TRUE(disk->Read(512, vectors));
  EXPECT_EQ(back, text);
  EXPECT_TRUE(disk->Flush());
  EXPECT_TRUE(disk->WriteZeroes(4096, 512, true));
  EXPECT_TRUE(disk->Discard(512, 512));
  char byte = 'x';
  ASSERT_EQ(::pread(raw, &byte, 1, 4096), 1);
  EXPECT_EQ(byte, 0);
  vectors = {{back.data(), 512}};
  EXPECT_FALSE(disk->Read(1 << 20, vectors));
  EXPECT_TRUE(disk->WriteZeroes(4608, 512, false));
  ASSERT_EQ(::pread(raw, &byte, 1, 4608), 1);
  EXPECT_EQ(byte, 0);
}

TEST(RawDiskTest, WhatIsNoDiskIsRefused) {
  OwnedFd fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_THAT(OpenRawDisk(std::move(fd)), StatusIs(absl::StatusCode::kInvalidArgument, "neither a file nor a block device"));
}

}  // namespace
}  // namespace vmm
