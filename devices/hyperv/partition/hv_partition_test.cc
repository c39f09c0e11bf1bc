#include "devices/hyperv/partition/hv_partition.h"

#include <cstring>
#include <string>

#include "base/status_matchers.h"
#include "devices/hyperv/fake_overlay_space.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/partition/hypercall_page.h"
#include "devices/hyperv/partition/reference_tsc_layout.h"
#include "devices/hyperv/fake_reference_clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memory/access_gate.h"
#include "memory/guest_ram.h"
#include "devices/fake_machine_control.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "memory/page_rights.h"
#include "memory/protection_map.h"
#include "memory/recording_listener.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 16 << 20;
constexpr uint64_t kOsId = 0x8100'0000'0000'0001;
constexpr uint64_t kPage5 = uint64_t{5} << kHvOverlayPageShift;

class HvPartitionTest : public testing::Test {
 protected:
  void SetUp() override {
    auto layout = MemoryLayout::Create(kRamBytes);
    ASSERT_OK(layout);
    auto ram = GuestRam::Create({.bytes = kRamBytes});
    ASSERT_OK(ram);
    auto memory = GuestMemory::Create(**ram, *layout);
    ASSERT_OK(memory);
    memory_ = *std::move(memory);
    map_ = *ProtectionMap::Create(*layout, 2);
    level_memory_ = std::make_unique<LevelMemory>(*memory_, *map_, gate_, 0);
    clock_.parameters = ReferenceTscParameters{.scale = 0x1234, .offset = 0x5678};
    shared_ = std::make_unique<HvSharedRegisters>(HvSharedRegisters::Environment{clock_, control_, *level_memory_},
                                                  HvSharedRegisters::Frequencies{.tsc_hz = 3'000'000'000, .apic_hz = 1'000'000'000});
    Make(HvOffer().With(HvFeature::kHypercallLock));
  }
  void Make(const HvOffer& offer) {
    overlays_ = std::make_unique<FakeOverlaySpace>();
    auto partition = HvPartition::Create(offer, *shared_, *overlays_);
    ASSERT_OK(partition);
    partition_ = *std::move(partition);
  }
  uint64_t Get(uint32_t msr) {
    uint64_t value = 0xbad;
    EXPECT_TRUE(partition_->Read(msr, value)) << std::hex << msr;
    return value;
  }
  FakeOverlayPage& hypercall_page() { return overlays_->page(0); }
  FakeOverlayPage& reference_tsc_page() { return overlays_->page(1); }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ProtectionMap> map_;
  AccessGate gate_;
  std::unique_ptr<LevelMemory> level_memory_;
  FakeReferenceClock clock_;
  FakeMachineControl control_;
  std::unique_ptr<HvSharedRegisters> shared_;
  std::unique_ptr<FakeOverlaySpace> overlays_;
  std::unique_ptr<HvPartition> partition_;
};

TEST_F(HvPartitionTest, AllRegistersAreZeroAtFirst) {
  EXPECT_EQ(Get(kHvMsrGuestOsId), 0u);
  EXPECT_EQ(Get(kHvMsrHypercall), 0u);
  EXPECT_EQ(Get(kHvMsrReferenceTsc), 0u);
  EXPECT_EQ(Get(kHvMsrReset), 0u);
  for (uint32_t n = 0; n < 5; ++n) EXPECT_EQ(Get(kHvMsrCrashP0 + n), 0u);
  EXPECT_FALSE(partition_->is_hypercall_page_enabled());
}

TEST_F(HvPartitionTest, WithoutAGuestOsIdThePageStaysDisabledAndTheRestIsKept) {
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | 0xff1));
  EXPECT_EQ(Get(kHvMsrHypercall), kPage5 | 0xff0);
  EXPECT_FALSE(partition_->is_hypercall_page_enabled());
  EXPECT_EQ(hypercall_page().place(), std::nullopt);
}

TEST_F(HvPartitionTest, ThePageIsPlacedReadOnlyAndItsReservedBitsAreKept) {
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_FALSE(partition_->had_read_only_page());
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | 0x7f4 | kHvOverlayEnable));
  EXPECT_EQ(Get(kHvMsrHypercall), kPage5 | 0x7f4 | kHvOverlayEnable);
  EXPECT_EQ(hypercall_page().place(), Gpfn(5));
  EXPECT_EQ(hypercall_page().access(), OverlayPage::Access::kReadExecute);
  EXPECT_TRUE(partition_->is_hypercall_page_enabled());
  EXPECT_EQ(partition_->hypercall_page(), Gpfn(5));
  EXPECT_TRUE(partition_->had_read_only_page());
}

TEST_F(HvPartitionTest, ThePageMovesAndGoes) {
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, 2 * kPage5 | kHvOverlayEnable));
  EXPECT_EQ(hypercall_page().place(), Gpfn(10));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, 2 * kPage5));
  EXPECT_EQ(hypercall_page().place(), std::nullopt);
  EXPECT_FALSE(partition_->is_hypercall_page_enabled());
  EXPECT_EQ(Get(kHvMsrHypercall), 2 * kPage5);
}

TEST_F(HvPartitionTest, APageOutsideRamIsAFaultThatChangesNothing) {
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_FALSE(partition_->Write(kHvMsrHypercall, ~uint64_t{0xffe}));
  EXPECT_EQ(Get(kHvMsrHypercall), 0u);
  EXPECT_EQ(hypercall_page().place(), std::nullopt);
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable));
  EXPECT_FALSE(partition_->Write(kHvMsrHypercall, ~uint64_t{0xffe}));
  EXPECT_TRUE(partition_->is_hypercall_page_enabled());
  EXPECT_EQ(Get(kHvMsrHypercall), kPage5 | kHvOverlayEnable);
  EXPECT_EQ(hypercall_page().place(), Gpfn(5));
}

TEST_F(HvPartitionTest, PagesOverRamThatTheLevelMayNotReadAreAFaultThatChangesNothing) {
  overlays_->rights[6] = PageRights::None();
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable));
  EXPECT_TRUE(partition_->Write(kHvMsrReferenceTsc, kPage5 | kHvOverlayEnable));
  const uint64_t page6 = uint64_t{6} << kHvOverlayPageShift | kHvOverlayEnable;
  EXPECT_FALSE(partition_->Write(kHvMsrHypercall, page6));
  EXPECT_FALSE(partition_->Write(kHvMsrReferenceTsc, page6));
  EXPECT_EQ(hypercall_page().place(), Gpfn(5));
  EXPECT_EQ(reference_tsc_page().place(), Gpfn(5));
  EXPECT_EQ(Get(kHvMsrHypercall), kPage5 | kHvOverlayEnable);
  EXPECT_EQ(Get(kHvMsrReferenceTsc), kPage5 | kHvOverlayEnable);
  EXPECT_TRUE(partition_->is_hypercall_page_enabled());
  // Both are read-only to the guest: a page that it may read will do.
  overlays_->rights[6] = PageRights(0xd);
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, page6));
  EXPECT_TRUE(partition_->Write(kHvMsrReferenceTsc, page6));
}

TEST_F(HvPartitionTest, GuestOsIdZeroTakesThePageAway) {
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable));
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, 0));
  EXPECT_EQ(hypercall_page().place(), std::nullopt);
  EXPECT_EQ(Get(kHvMsrHypercall), kPage5);
  EXPECT_EQ(Get(kHvMsrGuestOsId), 0u);
}

TEST_F(HvPartitionTest, ALockedPageStays) {
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable | kHvHypercallLocked));
  EXPECT_FALSE(partition_->Write(kHvMsrHypercall, 0));
  EXPECT_FALSE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable | kHvHypercallLocked));
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, 0));
  EXPECT_EQ(hypercall_page().place(), Gpfn(5));
}

TEST_F(HvPartitionTest, WhereNoLockIsOfferedTheBitIsNotTaken) {
  Make(HvOffer());
  EXPECT_TRUE(partition_->Write(kHvMsrGuestOsId, kOsId));
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, kPage5 | kHvOverlayEnable | kHvHypercallLocked));
  EXPECT_EQ(Get(kHvMsrHypercall), kPage5 | kHvOverlayEnable);
  EXPECT_TRUE(partition_->Write(kHvMsrHypercall, 0));
}

TEST_F(HvPartitionTest, TheHypercallPageHoldsTheEntriesAtTheirOffsets) {
  const auto* code = reinterpret_cast<const uint8_t*>(hypercall_page().data());
  for (const uint32_t start : {kHvHypercallOffset, kHvVtlCall32Offset, kHvVtlCall64Offset, kHvVtlReturn32Offset, kHvVtlReturn64Offset}) {
    // Up to its return, an entry has exactly one out, behind a nop.
    uint32_t at = start;
    while (code[at] != 0xc3) ++at;
    EXPECT_EQ(code[at - 3], 0x90);
    EXPECT_EQ(code[at - 2], 0xe6);
    EXPECT_EQ(code[at - 1], kHvHypercallPort);
    EXPECT_TRUE(IsHypercallPageExit(0x7000 + at - 2));
    EXPECT_FALSE(IsHypercallPageExit(0x7000 + at - 3));
  }
  EXPECT_EQ(code[kPageBytes - 1], 0xcc);
}

TEST_F(HvPartitionTest, TheReferenceTscPageIsReadOnlyAndHoldsTheClocksParameters) {
  EXPECT_TRUE(partition_->Write(kHvMsrReferenceTsc, kPage5 | 0xffe | kHvOverlayEnable));
  EXPECT_EQ(Get(kHvMsrReferenceTsc), kPage5 | 0xffe | kHvOverlayEnable);
  EXPECT_EQ(reference_tsc_page().place(), Gpfn(5));
  EXPECT_EQ(reference_tsc_page().access(), OverlayPage::Access::kRead);
  HvReferenceTscPage content;
  std::memcpy(&content, reference_tsc_page().data(), sizeof(content));
  EXPECT_EQ(content.sequence, 1u);
  EXPECT_EQ(content.scale, 0x1234u);
  EXPECT_EQ(content.offset, 0x5678u);
}

TEST_F(HvPartitionTest, WithoutAStableTscThePageSaysInvalid) {
  clock_.parameters.reset();
  Make(HvOffer());
  HvReferenceTscPage content;
  std::memcpy(&content, reference_tsc_page().data(), sizeof(content));
  EXPECT_EQ(content.sequence, kHvReferenceTscInvalid);
}

TEST_F(HvPartitionTest, AReferenceTscPageOutsideRamIsNoFaultAndNowhere) {
  EXPECT_TRUE(partition_->Write(kHvMsrReferenceTsc, ~uint64_t{0xffe}));
  EXPECT_EQ(Get(kHvMsrReferenceTsc), ~uint64_t{0xffe});
  EXPECT_EQ(reference_tsc_page().place(), std::nullopt);
}

TEST_F(HvPartitionTest, ReferenceTimeAndFrequenciesAreReadOnly) {
  clock_.now = HvTicks(777);
  EXPECT_EQ(Get(kHvMsrTimeRefCount), 777u);
  EXPECT_EQ(Get(kHvMsrTscFrequency), 3'000'000'000u);
  EXPECT_EQ(Get(kHvMsrApicFrequency), 1'000'000'000u);
  for (const uint32_t msr : {kHvMsrTimeRefCount, kHvMsrTscFrequency, kHvMsrApicFrequency}) EXPECT_FALSE(partition_->Write(msr, 1));
}

TEST_F(HvPartitionTest, ResetTakesOnlyItsBit) {
  EXPECT_TRUE(partition_->Write(kHvMsrReset, 0));
  EXPECT_FALSE(partition_->Write(kHvMsrReset, 2));
  EXPECT_FALSE(partition_->Write(kHvMsrReset, 3));
  EXPECT_EQ(control_.requests, 0);
  EXPECT_TRUE(partition_->Write(kHvMsrReset, 1));
  EXPECT_EQ(control_.last, MachineEnd::kRebooted);
}

TEST_F(HvPartitionTest, CrashRegistersAreScratchUntilTheCrashIsNotified) {
  for (uint32_t n = 0; n < 5; ++n) EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + n, 0x10 + n));
  EXPECT_EQ(Get(kHvMsrCrashP4), 0x14u);
  EXPECT_EQ(Get(kHvMsrCrashCtl), kHvCrashNotify | kHvCrashMessage);
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, 0));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, kHvCrashMessage));
  EXPECT_FALSE(partition_->Write(kHvMsrCrashCtl, kHvCrashNotify | 1));
  EXPECT_EQ(control_.requests, 0);
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, kHvCrashNotify));
  EXPECT_EQ(control_.requests, 1);
  EXPECT_EQ(control_.last, MachineEnd::kGuestCrash);
  EXPECT_EQ(control_.text, "the guest reported a crash: 0x10 (0x11, 0x12, 0x13, 0x14)");
}

TEST_F(HvPartitionTest, ACrashMessageIsQuotedWithItsControlCharactersEscaped) {
  constexpr char kText[] = "Oops\x1b[2J\nnext";
  ASSERT_TRUE(memory_->Write(Gpa(0x8000), std::as_bytes(std::span(kText, sizeof(kText) - 1))));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 3, 0x8000));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 4, sizeof(kText) - 1));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage));
  EXPECT_THAT(control_.text, testing::HasSubstr("it says: Oops\\x1b[2J\\nnext"));
}

TEST_F(HvPartitionTest, ACrashMessageThatIsTooLongOrNotInRamIsNotRead) {
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 3, kRamBytes - 8));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 4, 16));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage));
  EXPECT_THAT(control_.text, testing::HasSubstr("not in RAM, or longer than a page"));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 3, 0));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 4, ~uint64_t{0}));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage));
  EXPECT_THAT(control_.text, testing::HasSubstr("not in RAM, or longer than a page"));
}

TEST_F(HvPartitionTest, ACrashMessageInAPageThatVtl0MayNotReadIsNotRead) {
  RecordingListener listener;
  ASSERT_EQ(map_->Set(1, Gpfn(8), 1, PageRights::None(), listener), ProtectionResult::kDone);
  ASSERT_TRUE(memory_->Fill(Gpa(Gpfn(8)), std::byte{'k'}, 16));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 3, 0x8000));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashP0 + 4, 16));
  EXPECT_TRUE(partition_->Write(kHvMsrCrashCtl, kHvCrashNotify | kHvCrashMessage));
  EXPECT_THAT(control_.text, testing::HasSubstr("or not for it to read"));
  EXPECT_THAT(control_.text, testing::Not(testing::HasSubstr("kkkk")));
}

TEST_F(HvPartitionTest, OtherNumbersAreRefused) {
  uint64_t value;
  for (const uint32_t msr : {kHvMsrVpIndex, 0x4000'0004u, 0x4000'0106u, kHvMsrGuestIdle, 0u, ~0u}) {
    EXPECT_FALSE(partition_->Read(msr, value)) << std::hex << msr;
    EXPECT_FALSE(partition_->Write(msr, 0)) << std::hex << msr;
  }
}

}  // namespace
}  // namespace vmm
