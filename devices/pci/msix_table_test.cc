#include "devices/pci/msix_table.h"

#include <cstring>
#include <memory>
#include <span>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/status_matchers.h"
#include "devices/pci/fake_msi_router.h"

namespace vmm {
namespace {

class MsixTableTest : public testing::Test {
 protected:
  void SetUp() override {
    for (EventFd& source : sources_) {
      ASSERT_OK_AND_ASSIGN(source, EventFd::Create());
    }
    const int fds[] = {sources_[0].fd(), sources_[1].fd()};
    ASSERT_OK_AND_ASSIGN(table_, MsixTable::Create(router_, 3, fds));
  }
  void Write(uint32_t offset, uint32_t value) { table_->WriteTable(offset, std::as_bytes(std::span(&value, 1))); }
  uint32_t Read(uint32_t offset) {
    uint32_t value = 0xffff'ffff;
    table_->ReadTable(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  // As a driver does it: message, then unmask.
  void SetEntry(uint32_t vector, uint32_t data) {
    Write(16 * vector, 0xfee0'1000);
    Write(16 * vector + 4, 0);
    Write(16 * vector + 8, data);
    Write(16 * vector + 12, 0);
  }
  uint64_t Pending() {
    uint64_t bits = ~uint64_t{0};
    table_->ReadPending(0, std::as_writable_bytes(std::span(&bits, 1)));
    return bits;
  }

  FakeMsiRouter router_;
  EventFd sources_[2] = {EventFd(OwnedFd()), EventFd(OwnedFd())};
  std::unique_ptr<MsixTable> table_;
};

TEST_F(MsixTableTest, MessagesAreRoutedInOneChangeWhenTheDeviceGoesLive) {
  table_->SetControl(true, false);
  EXPECT_TRUE(table_->SetVector(0, 0));
  EXPECT_TRUE(table_->SetVector(1, 2));
  SetEntry(0, 0x41);
  SetEntry(2, 0x43);
  EXPECT_EQ(router_.changes, 0);
  EXPECT_TRUE(router_.connected.empty());
  table_->SetLive(true);
  EXPECT_EQ(router_.changes, 1);
  EXPECT_EQ(router_.DataOf(sources_[0].fd()), 0x41u);
  EXPECT_EQ(router_.DataOf(sources_[1].fd()), 0x43u);
  EXPECT_EQ(router_.routes.at(24).address, 0xfee0'1000u);
  // What changes nothing costs nothing.
  SetEntry(0, 0x41);
  EXPECT_EQ(router_.changes, 1);
  SetEntry(0, 0x51);
  EXPECT_EQ(router_.DataOf(sources_[0].fd()), 0x51u);
}

TEST_F(MsixTableTest, EveryMaskDisconnectsAndASignalMeanwhileIsPending) {
  table_->SetControl(true, false);
  table_->SetVector(0, 1);
  SetEntry(1, 0x41);
  table_->SetLive(true);
  EXPECT_EQ(Pending(), 0u);
  Write(16 + 12, 1);
  EXPECT_TRUE(router_.connected.empty());
  sources_[0].Signal();
  EXPECT_EQ(Pending(), 2u);
  Write(16 + 12, 0);
  EXPECT_EQ(router_.DataOf(sources_[0].fd()), 0x41u);
  EXPECT_EQ(Pending(), 0u);  // connected: the router raises what is in it
  table_->SetControl(true, true);
  EXPECT_TRUE(router_.connected.empty());
  EXPECT_EQ(Pending(), 2u);
  table_->SetControl(true, false);
  table_->SetControl(false, false);
  EXPECT_TRUE(router_.connected.empty());
  EXPECT_EQ(router_.changes, 1);
}

TEST_F(MsixTableTest, TwoSourcesMayShareAVector) {
  table_->SetControl(true, false);
  table_->SetVector(0, 1);
  table_->SetVector(1, 1);
  SetEntry(1, 0x41);
  table_->SetLive(true);
  EXPECT_EQ(router_.DataOf(sources_[0].fd()), 0x41u);
  EXPECT_EQ(router_.DataOf(sources_[1].fd()), 0x41u);
}

TEST_F(MsixTableTest, AVectorThatIsNotThereIsRefused) {
  EXPECT_FALSE(table_->SetVector(0, 3));
  EXPECT_EQ(table_->vector(0), MsixTable::kNoVector);
  EXPECT_TRUE(table_->SetVector(0, MsixTable::kNoVector));
}

TEST_F(MsixTableTest, OnlyAlignedWordsInsideTheTableCount) {
  const uint64_t both = 0x1122'3344'5566'7788;
  table_->WriteTable(0, std::as_bytes(std::span(&both, 1)));
  EXPECT_EQ(Read(0), 0x5566'7788u);
  EXPECT_EQ(Read(4), 0x1122'3344u);
  const uint16_t half = 0xabcd;
  table_->WriteTable(8, std::as_bytes(std::span(&half, 1)));
  EXPECT_EQ(Read(8), 0u);
  EXPECT_EQ(Read(12), 1u);  // masked from the start
  Write(12, 0xffff'fffe);
  EXPECT_EQ(Read(12), 0u);
  Write(48, 1);
  EXPECT_EQ(Read(48), 0xffff'ffffu);
  EXPECT_EQ(Read(0xffff'fffc), 0xffff'ffffu);
}

TEST_F(MsixTableTest, AResetTakesTheVectorsAndLeavesTheTable) {
  table_->SetControl(true, false);
  table_->SetVector(0, 0);
  SetEntry(0, 0x41);
  table_->SetLive(true);
  table_->ResetSources();
  EXPECT_TRUE(router_.connected.empty());
  EXPECT_EQ(table_->vector(0), MsixTable::kNoVector);
  EXPECT_EQ(Read(8), 0x41u);
  table_->SetVector(0, 0);
  table_->SetLive(true);
  EXPECT_EQ(router_.changes, 1);
  EXPECT_EQ(router_.DataOf(sources_[0].fd()), 0x41u);
}

TEST_F(MsixTableTest, ARefusedRouteIsCounted) {
  router_.refuse = true;
  table_->SetControl(true, false);
  table_->SetVector(0, 0);
  SetEntry(0, 0x41);
  table_->SetLive(true);
  EXPECT_EQ(table_->faults(), 1u);
}

}  // namespace
}  // namespace vmm
