#include "devices/virtio/balloon/balloon_device.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/balloon/balloon_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

namespace vb = virtio_balloon;

constexpr uint64_t kPage = vb::kPageBytes;

// The host's memory is the real one: what is discarded is a hole in the file of FakeGuestRam.
class FakeHost final : public BalloonHost {
 public:
  bool Discard(std::byte* start, uint64_t bytes) noexcept override {
    ++discards;
    return works && ::madvise(start, bytes, MADV_REMOVE) == 0;
  }
  bool Send(const vb::Report& report) noexcept override {
    if (!takes) return false;
    reports.push_back(report);
    return true;
  }
  uint64_t NowMs() noexcept override { return now; }
  void WakeAt(uint64_t ms) noexcept override { wake_at = ms; }

  std::vector<vb::Report> reports;
  uint64_t now = 1000;
  uint64_t wake_at = 0;
  int discards = 0;
  bool works = true;
  bool takes = true;
};

class BalloonDeviceTest : public testing::Test, public BackendHost {
 protected:
  // The rings of queue i lie at kBase + i * 0x4000; the pages that are given away are the last quarter of the RAM.
  static constexpr Gpa kPages{FakeGuestRam::kBase.raw() + 0xc'0000};
  static constexpr uint32_t kFirstPfn = static_cast<uint32_t>(kPages.raw() / kPage);

  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    Make({.target_pages = 7});
    for (size_t i = 0; i < std::size(queues_); ++i) queues_[i].Start(drivers_[i].Rings(memory_), 0, 0, memory_, &call_);
    std::memset(ram_.At(kPages), 0x5a, 0x4'0000);
  }
  void Make(const BalloonOptions& options) {
    device_ = std::make_unique<BalloonDevice>(host_, options);
    device_->OnHost(*this);
    device_->OnFeatures(device_->features() & ~vb::kFeaturePagePoison);
  }
  void ConfigChanged() override { ++config_changes_; }
  void Wake(uint16_t index) override { (void)device_->Process(index, queues_[index]); }
  void OfferPfns(const std::vector<uint32_t>& pfns) {
    FakeGuestDriver& driver = drivers_[vb::kInflate];
    std::memcpy(ram_.At(driver.data()), pfns.data(), pfns.size() * sizeof(uint32_t));
    driver.Offer({{driver.data(), static_cast<uint32_t>(pfns.size() * sizeof(uint32_t))}});
    Wake(vb::kInflate);
    EXPECT_TRUE(driver.Take().has_value());
  }
  void WriteConfig(uint32_t offset, uint32_t value) {
    EXPECT_TRUE(device_->WriteConfig(offset, std::as_bytes(std::span(&value, 1))));
  }
  [[nodiscard]] bool IsZero(uint32_t page) const {
    const std::string content = ram_.Get(kPages + page * kPage, kPage);
    return content == std::string(kPage, '\0');
  }
  [[nodiscard]] bool IsKept(uint32_t page) const { return ram_.Get(kPages + page * kPage, kPage) == std::string(kPage, 0x5a); }
  [[nodiscard]] uint64_t FileBytes() const {
    struct stat about {};
    EXPECT_EQ(::fstat(ram_.fd(), &about), 0);
    return static_cast<uint64_t>(about.st_blocks) * 512;
  }
  vb::Report Latest() {
    host_.now += BalloonDevice::kReportMs;
    device_->OnTimer();
    return host_.reports.empty() ? vb::Report{} : host_.reports.back();
  }

  FakeGuestRam ram_;
  FakeGuestDriver drivers_[vb::kQueues] = {{ram_, 8, FakeGuestRam::kBase},
                                           {ram_, 8, FakeGuestRam::kBase + 0x4000},
                                           {ram_, 8, FakeGuestRam::kBase + 0x8000},
                                           {ram_, 8, FakeGuestRam::kBase + 0xc000},
                                           {ram_, 8, FakeGuestRam::kBase + 0x1'0000}};
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  BackendQueue queues_[vb::kQueues];
  FakeHost host_;
  std::unique_ptr<BalloonDevice> device_;
  int config_changes_ = 0;
};

TEST_F(BalloonDeviceTest, InflatedPagesLeaveTheHostsMemoryAndNoOthers) {
  OfferPfns({kFirstPfn + 2, kFirstPfn + 1, kFirstPfn + 5, kFirstPfn + 1});
  EXPECT_TRUE(IsKept(0) && IsZero(1) && IsZero(2) && IsKept(3) && IsKept(4) && IsZero(5) && IsKept(6));
  EXPECT_EQ(host_.discards, 2);
  EXPECT_EQ(Latest().discarded_bytes, 3 * kPage);
}

TEST_F(BalloonDeviceTest, AnInflatedPageIsNoLongerBacked) {
  OfferPfns({0});  // no page of ours; the rings themselves are backed from now on
  const uint64_t before = FileBytes();
  OfferPfns({kFirstPfn + 8, kFirstPfn + 9, kFirstPfn + 10});
  EXPECT_EQ(FileBytes(), before - 3 * kPage);
}

TEST_F(BalloonDeviceTest, PagesThatTheDeviceWasNotGivenAreRefusedAndCounted) {
  const auto last = static_cast<uint32_t>((FakeGuestRam::kBase.raw() + FakeGuestRam::kBytes) / kPage);
  OfferPfns({0, last, 0xffff'ffff, kFirstPfn, static_cast<uint32_t>(FakeGuestRam::kBase.raw() / kPage - 1)});
  EXPECT_TRUE(IsZero(0));
  EXPECT_EQ(Latest().refused_pages, 4u);
  EXPECT_EQ(Latest().discarded_bytes, kPage);
}

TEST_F(BalloonDeviceTest, WhatTheHostDoesNotTakeIsCounted) {
  host_.works = false;
  OfferPfns({kFirstPfn, kFirstPfn + 1});
  EXPECT_TRUE(IsKept(0) && IsKept(1));
  EXPECT_EQ(Latest().refused_pages, 2u);
  EXPECT_EQ(Latest().discarded_bytes, 0u);
}

TEST_F(BalloonDeviceTest, HalfAPageNumberAndAnEmptyRequestAreGivenBack) {
  FakeGuestDriver& driver = drivers_[vb::kInflate];
  driver.Offer({{driver.data(), 3}});
  driver.Offer({{driver.data(), 0}});
  Wake(vb::kInflate);
  EXPECT_TRUE(driver.Take().has_value());
  EXPECT_TRUE(driver.Take().has_value());
  EXPECT_EQ(host_.discards, 0);
}

TEST_F(BalloonDeviceTest, DeflatingTouchesNothing) {
  FakeGuestDriver& driver = drivers_[vb::kDeflate];
  ram_.Word<uint32_t>(driver.data()) = kFirstPfn;
  driver.Offer({{driver.data(), 4}});
  Wake(vb::kDeflate);
  EXPECT_TRUE(driver.Take().has_value());
  EXPECT_TRUE(IsKept(0));
}

TEST_F(BalloonDeviceTest, ReportedRangesAreDiscardedByBothQueuesAndOnlyWholePages) {
  for (const uint16_t index : {vb::kReportingOr, vb::kReporting}) {
    std::memset(ram_.At(kPages), 0x5a, 0x4'0000);
    drivers_[index].Offer({{kPages + 100, 4 * kPage, true}, {kPages + 8 * kPage, 2 * kPage, true}});
    Wake(index);
    EXPECT_TRUE(drivers_[index].Take().has_value());
    EXPECT_TRUE(IsKept(0) && IsZero(1) && IsZero(2) && IsZero(3) && IsKept(4) && IsKept(7) && IsZero(8) && IsZero(9) && IsKept(10));
  }
}

TEST_F(BalloonDeviceTest, PoisonedPagesKeepWhatTheyHold) {
  device_->OnFeatures(device_->features());
  const auto report = [&] {
    drivers_[vb::kReporting].Offer({{kPages, kPage, true}});
    Wake(vb::kReporting);
    EXPECT_TRUE(drivers_[vb::kReporting].Take().has_value());
  };
  report();  // the value is not known yet
  EXPECT_TRUE(IsKept(0));
  WriteConfig(offsetof(vb::Config, poison_val), 0xaa);
  report();
  EXPECT_TRUE(IsKept(0));
  WriteConfig(offsetof(vb::Config, poison_val), 0);
  report();
  EXPECT_TRUE(IsZero(0));
}

TEST_F(BalloonDeviceTest, AnotherProcessLearnsWhatTheDriverHadSaid) {
  device_->OnFeatures(device_->features());
  EXPECT_EQ(host_.reports.back().fresh, 1u) << "it says so when it starts";
  device_->OnCommand({.target_pages = 9, .actual_pages = 4, .poison_val = 0x77, .poison_known = 1});
  const vb::Report report = Latest();
  EXPECT_EQ(report.fresh, 0u);
  EXPECT_EQ(report.target_pages, 9u);
  EXPECT_EQ(report.actual_pages, 4u);
  drivers_[vb::kReporting].Offer({{kPages, kPage, true}});
  Wake(vb::kReporting);
  EXPECT_TRUE(IsKept(0));
  // But not against the driver's own word.
  WriteConfig(offsetof(vb::Config, actual), 5);
  WriteConfig(offsetof(vb::Config, poison_val), 0);
  device_->OnCommand({.target_pages = 9, .actual_pages = 4, .poison_val = 0x77, .poison_known = 1});
  EXPECT_EQ(Latest().actual_pages, 5u);
  EXPECT_EQ(Latest().poison_val, 0u);
}

TEST_F(BalloonDeviceTest, ANewTargetIsConfigurationAndToldOnce) {
  vb::Config config{};
  std::memcpy(&config, device_->config().data(), sizeof(config));
  EXPECT_EQ(config.num_pages, 7u);
  device_->OnCommand({.target_pages = 100, .actual_pages = 0, .poison_val = 0, .poison_known = 0});
  device_->OnCommand({.target_pages = 100, .actual_pages = 0, .poison_val = 0, .poison_known = 0});
  EXPECT_EQ(config_changes_, 1);
  std::memcpy(&config, device_->config().data(), sizeof(config));
  EXPECT_EQ(config.num_pages, 100u);
}

TEST_F(BalloonDeviceTest, ADriverWritesItsOwnFieldsOnly) {
  const uint32_t value = 1;
  const auto bytes = std::as_bytes(std::span(&value, 1));
  EXPECT_FALSE(device_->WriteConfig(0, bytes));
  EXPECT_FALSE(device_->WriteConfig(8, bytes));
  EXPECT_FALSE(device_->WriteConfig(5, bytes));
  EXPECT_FALSE(device_->WriteConfig(4, bytes.first(2)));
  EXPECT_FALSE(device_->WriteConfig(12, bytes)) << "PAGE_POISON was not accepted";
}

TEST_F(BalloonDeviceTest, StatisticsAreAskedForWhenTheyAreDueAndUnknownOnesLeftOut) {
  Make({.stats_seconds = 5});
  EXPECT_EQ(host_.wake_at, host_.now + 5000);
  FakeGuestDriver& driver = drivers_[vb::kStats];
  const vb::Stat stats[] = {{vb::kStatMemFree, 1234}, {999, 1}, {vb::kStatMemTotal, 5678}};
  std::memcpy(ram_.At(driver.data()), stats, sizeof(stats));
  driver.Offer({{driver.data(), sizeof(stats)}});
  Wake(vb::kStats);
  EXPECT_FALSE(driver.Take().has_value()) << "kept until they are wanted";
  const vb::Report report = Latest();
  EXPECT_EQ(report.stats_given, 1u << vb::kStatMemFree | 1u << vb::kStatMemTotal);
  EXPECT_EQ(report.stats[vb::kStatMemTotal], 5678u);
  host_.now += 5000;
  device_->OnTimer();
  EXPECT_TRUE(driver.Take().has_value());
  // A stopped queue forgets the buffer: it is not pushed into another driver's ring.
  driver.Offer({{driver.data(), sizeof(stats)}});
  Wake(vb::kStats);
  device_->OnQueueStopped(vb::kStats);
  host_.now += 5000;
  device_->OnTimer();
  EXPECT_FALSE(driver.Take().has_value());
}

TEST_F(BalloonDeviceTest, ASecondStatisticsBufferIsGivenBack) {
  FakeGuestDriver& driver = drivers_[vb::kStats];
  driver.Offer({{driver.data(), 10}});
  driver.Offer({{driver.data(), 10}});
  Wake(vb::kStats);
  EXPECT_TRUE(driver.Take().has_value());
  EXPECT_FALSE(driver.Take().has_value());
}

TEST_F(BalloonDeviceTest, ReportsAreBoundedInNumberAndTheLastIsNotLost) {
  ASSERT_EQ(host_.reports.size(), 1u);  // that it has started
  for (uint32_t i = 1; i <= 1000; ++i) WriteConfig(offsetof(vb::Config, actual), i);
  EXPECT_EQ(host_.reports.size(), 1u);
  host_.takes = false;  // a monitor that does not read
  host_.now = host_.wake_at;
  device_->OnTimer();
  EXPECT_EQ(host_.reports.size(), 1u);
  EXPECT_GT(host_.wake_at, host_.now);
  host_.takes = true;
  host_.now = host_.wake_at;
  device_->OnTimer();
  ASSERT_EQ(host_.reports.size(), 2u);
  EXPECT_EQ(host_.reports.back().actual_pages, 1000u);
}

}  // namespace
}  // namespace vmm
