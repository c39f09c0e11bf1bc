#include "devices/hyperv/partition/hv_vp.h"

#include <cstring>
#include <optional>

#include "devices/guest_interface.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/partition/hv_vps_for_test.h"
#include "devices/hyperv/partition/hypercall_page_layout.h"
#include "gtest/gtest.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"

namespace vmm {
namespace {

using Timers = HvVpsForTest::Timers;

constexpr uint64_t Page(uint64_t number) { return number << kHvOverlayPageShift | kHvOverlayEnable; }

class NoXmm final : public XmmAccess {
 public:
  [[nodiscard]] bool Load(XmmRegisters&) noexcept override { return false; }
  [[nodiscard]] bool Store(const XmmRegisters&) noexcept override { return false; }
};

// A hypercall from the page, in 64-bit mode and ring 0.
class Caller final {
 public:
  static constexpr uint64_t kInput = 0x10000;
  static constexpr uint64_t kOutput = 0x11000;
  explicit Caller(HvVpsForTest& vps) : vps_(vps) {
    EXPECT_TRUE(vps.Set(0, kHvMsrGuestOsId, 1));
    EXPECT_TRUE(vps.Set(0, kHvMsrHypercall, Page(7)));
  }
  HypercallOutcome Call(uint32_t vp, uint64_t control, uint64_t rip = 0x7000 + kHvHypercallOffset + 1) {
    NoXmm xmm;
    registers = {.rax = 0xbad, .rcx = control, .rdx = kInput, .r8 = kOutput, .rip = rip, .long_mode = true, .protected_mode = true, .cpl = 0};
    return vps_.vp(vp).Hypercall(registers, xmm);
  }
  // One register of VP `target`, asked by VP 0.
  HvStatus Get(uint32_t target, HvRegisterName name, HvRegisterValue& value) {
    PutHeader(target);
    EXPECT_TRUE(vps_.memory->WriteObject(Gpa(kInput + 16), static_cast<uint32_t>(name)));
    EXPECT_EQ(Call(0, 0x50 | uint64_t{1} << 32), HypercallOutcome::kDone);
    EXPECT_TRUE(vps_.memory->ReadObject(Gpa(kOutput), value));
    return static_cast<HvStatus>(registers.rax & 0xffff);
  }
  HvStatus Set(uint32_t target, HvRegisterName name, uint64_t value) {
    PutHeader(target);
    struct {
      uint32_t name, pad[3];
      uint64_t low, high;
    } const element{static_cast<uint32_t>(name), {}, value, 0};
    EXPECT_TRUE(vps_.memory->WriteObject(Gpa(kInput + 16), element));
    EXPECT_EQ(Call(0, 0x51 | uint64_t{1} << 32), HypercallOutcome::kDone);
    return static_cast<HvStatus>(registers.rax & 0xffff);
  }

  HypercallRegisters registers{};

 private:
  void PutHeader(uint32_t target) {
    struct {
      uint64_t partition;
      uint32_t vp;
      uint8_t vtl, pad[3];
    } const header{~uint64_t{0}, target, 0, {}};
    EXPECT_TRUE(vps_.memory->WriteObject(Gpa(kInput), header));
  }
  HvVpsForTest& vps_;
};

TEST(HvVpTest, VpIndexIsTheVpsOwnAndReadOnly) {
  HvVpsForTest vps;
  for (uint32_t n = 0; n < HvVpsForTest::kVps; ++n) EXPECT_EQ(vps.Get(n, kHvMsrVpIndex), n);
  EXPECT_FALSE(vps.Set(1, kHvMsrVpIndex, 1));
}

TEST(HvVpTest, PartitionRegistersAreSharedAndVpRegistersAreNot) {
  HvVpsForTest vps;
  EXPECT_TRUE(vps.Set(0, kHvMsrGuestOsId, 0x1234));
  EXPECT_EQ(vps.Get(2, kHvMsrGuestOsId), 0x1234u);
  EXPECT_TRUE(vps.Set(0, kHvMsrCrashP0, 0x77));
  EXPECT_EQ(vps.Get(1, kHvMsrCrashP0), 0x77u);
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(9)));
  EXPECT_EQ(vps.Get(1, kHvMsrVpAssistPage), Page(9));
  EXPECT_EQ(vps.Get(0, kHvMsrVpAssistPage), 0u);
  EXPECT_TRUE(vps.Set(2, kHvMsrSint0 + 3, 0x50));
  EXPECT_EQ(vps.Get(2, kHvMsrSint0 + 3), 0x50u);
  EXPECT_EQ(vps.Get(0, kHvMsrSint0 + 3), kHvSintReset);
}

TEST(HvVpTest, TheAssistPageIsPlacedReadWriteMovesAndGoes) {
  HvVpsForTest vps;
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(9) | 0xffe));
  EXPECT_EQ(vps.assist_page(1).place(), Gpfn(9));
  EXPECT_EQ(vps.assist_page(1).access(), OverlayPage::Access::kReadWrite);
  EXPECT_EQ(vps.Get(1, kHvMsrVpAssistPage), Page(9) | 0xffe);
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(10)));
  EXPECT_EQ(vps.assist_page(1).place(), Gpfn(10));
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, ~uint64_t{0}));  // outside RAM: no fault
  EXPECT_EQ(vps.assist_page(1).place(), std::nullopt);
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(10)));
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, 0));
  EXPECT_EQ(vps.assist_page(1).place(), std::nullopt);
}

TEST(HvVpTest, AnAssistPageOverRamThatTheLevelMayNotWriteIsAFaultThatChangesNothing) {
  HvVpsForTest vps;
  vps.overlays.rights[10] = PageRights::None();
  vps.overlays.rights[11] = PageRights(0xd);
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(9)));
  for (const uint64_t page : {10, 11}) {
    EXPECT_FALSE(vps.Set(1, kHvMsrVpAssistPage, Page(page)));
    EXPECT_EQ(vps.assist_page(1).place(), Gpfn(9));
    EXPECT_EQ(vps.Get(1, kHvMsrVpAssistPage), Page(9));
  }
  // What is in place stays, and may be written again, whatever becomes of the page beneath.
  vps.overlays.rights[9] = PageRights::None();
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(9)));
  vps.overlays.rights.clear();
  EXPECT_TRUE(vps.Set(1, kHvMsrVpAssistPage, Page(10)));
}

// The kernel's timers are not told of a page that was refused: they would write there.
TEST(HvVpTest, AMessagePageOverRamThatTheLevelMayNotWriteIsAFaultAlsoForTheKernelsTimers) {
  HvVpsForTest vps(Timers::kKernel);
  vps.overlays.rights[10] = PageRights(0xd);
  const int told = vps.around(1).kernel.sets;
  EXPECT_FALSE(vps.Set(1, kHvMsrSimp, Page(10)));
  EXPECT_EQ(vps.message_page(1).place(), std::nullopt);
  EXPECT_EQ(vps.around(1).kernel.sets, told);
}

TEST(HvVpTest, RegistersThatAreNobodysFault) {
  HvVpsForTest vps;
  for (const uint32_t msr : {0x4000'0004u, 0x4000'0024u, kHvMsrEoi, kHvMsrIcr, kHvMsrTpr, 0x4000'0085u, 0x4000'00a0u, 0x4000'00b8u,
                             kHvMsrGuestIdle, 0x4000'0106u, 0x4000'01ffu, 0u, 0xffff'ffffu}) {
    EXPECT_EQ(vps.Get(0, msr), std::nullopt) << std::hex << msr;
    EXPECT_FALSE(vps.Set(0, msr, 0)) << std::hex << msr;
  }
}

TEST(HvVpTest, WithoutItsPrivilegeARegisterFaults) {
  HvVpsForTest vps(Timers::kOwn, HvOffer{.max_vps = HvVpsForTest::kVps});
  for (uint32_t msr = kHvMsrFirst; msr < kHvMsrFirst + kHvMsrCount; ++msr) {
    EXPECT_EQ(vps.Get(0, msr), std::nullopt) << std::hex << msr;
    EXPECT_FALSE(vps.Set(0, msr, 0)) << std::hex << msr;
  }
}

TEST(HvVpTest, EachPrivilegeOpensItsRegistersAndNoOthers) {
  const struct {
    HvPrivilege privilege;
    std::vector<uint32_t> opened;
  } kCases[] = {
      {HvPrivilege::kVpRuntime, {kHvMsrVpRuntime}},
      {HvPrivilege::kTimeRefCount, {kHvMsrTimeRefCount}},
      {HvPrivilege::kHypercallMsrs, {kHvMsrGuestOsId, kHvMsrHypercall}},
      {HvPrivilege::kVpIndex, {kHvMsrVpIndex}},
      {HvPrivilege::kReset, {kHvMsrReset}},
      {HvPrivilege::kReferenceTsc, {kHvMsrReferenceTsc}},
      {HvPrivilege::kIntrCtrlRegs, {kHvMsrVpAssistPage}},
      {HvPrivilege::kFrequencyRegs, {}},  // the feature is needed too
  };
  for (const auto& c : kCases) {
    HvVpsForTest vps(Timers::kOwn, HvOffer{.max_vps = HvVpsForTest::kVps}.With(c.privilege));
    std::vector<uint32_t> readable;
    for (uint32_t msr = kHvMsrFirst; msr < kHvMsrFirst + kHvMsrCount; ++msr) {
      if (vps.Get(0, msr)) readable.push_back(msr);
    }
    EXPECT_EQ(readable, c.opened) << static_cast<int>(c.privilege);
  }
}

TEST(HvVpTest, VpRuntimeGrowsWithTheThreadsTime) {
  HvVpsForTest vps;
  const uint64_t first = *vps.Get(0, kHvMsrVpRuntime);
  volatile uint64_t spent = 0;
  uint64_t now = first;
  while (now == first) {
    for (int i = 0; i < 10000; ++i) spent = spent + 1;
    now = *vps.Get(0, kHvMsrVpRuntime);
    ASSERT_GE(now, first);
  }
  EXPECT_FALSE(vps.Set(0, kHvMsrVpRuntime, 0));
}

TEST(HvVpTest, AHypercallNeedsThePageAndItsPlaceInThePage) {
  HvVpsForTest vps;
  NoXmm xmm;
  HypercallRegisters early{.rcx = 0x8, .rip = 1, .long_mode = true, .protected_mode = true, .cpl = 0};
  EXPECT_EQ(vps.vp(0).Hypercall(early, xmm), HypercallOutcome::kNotOffered);
  Caller caller(vps);
  EXPECT_EQ(caller.Call(1, 0x8 | 1 << 16), HypercallOutcome::kDone);
  EXPECT_EQ(caller.Call(1, 0x8 | 1 << 16, 0x7000), HypercallOutcome::kNotOffered);
  EXPECT_TRUE(vps.Set(2, kHvMsrGuestOsId, 0));
  EXPECT_EQ(caller.Call(1, 0x8 | 1 << 16), HypercallOutcome::kNotOffered);
}

TEST(HvVpTest, AWriteToAReadOnlyPageIsTheGuestsOnlyOnceThereWasOne) {
  HvVpsForTest vps;
  EXPECT_FALSE(vps.vp(0).OnInaccessibleMemory());
  EXPECT_TRUE(vps.Set(0, kHvMsrReferenceTsc, Page(8)));
  EXPECT_TRUE(vps.vp(1).OnInaccessibleMemory());
}

TEST(HvVpTest, OwnTimersRunWhenTheDeadlineIsNotified) {
  HvVpsForTest vps;
  vps.clock.now = HvTicks(1000);
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer0Config, kHvStimerDirect | kHvStimerAutoEnable | uint64_t{0x60} << kHvStimerVectorShift));
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer0Config + 1, 5000));
  EXPECT_EQ(vps.around(0).deadline.deadline, HvTicks(5000));
  vps.vp(0).PrepareToEnter();
  EXPECT_TRUE(vps.around(0).vectors.vectors.empty());
  vps.clock.now = HvTicks(5000);
  vps.vp(0).NotifyDeadline();
  EXPECT_EQ(vps.around(0).kick.kicks, 1);
  vps.vp(0).PrepareToEnter();
  EXPECT_EQ(vps.around(0).vectors.vectors, std::vector<uint8_t>{0x60});
  EXPECT_EQ(vps.around(0).kernel.sets, 0);
}

TEST(HvVpTest, AnEndOfInterruptThatIsNotifiedBringsTheNextMessage) {
  HvVpsForTest vps;
  EXPECT_TRUE(vps.Set(1, kHvMsrSimp, Page(5)));
  EXPECT_TRUE(vps.Set(1, kHvMsrSint0 + 4, 0x50));
  auto* const slot = reinterpret_cast<HvMessage*>(vps.message_page(1).data()) + 4;
  HvMessage message{};
  message.header.type = HvMessageType::kVmBus;
  message.header.payload_size = 1;
  message.payload[0] = 1;
  EXPECT_EQ(vps.vp(1).synic().Post(Poster::OfVp(VpIndex(0)), Sint::Of<4>(), message), HvStatus::kSuccess);
  message.payload[0] = 2;
  EXPECT_EQ(vps.vp(1).synic().Post(Poster::OfVp(VpIndex(0)), Sint::Of<4>(), message), HvStatus::kSuccess);
  vps.vp(1).PrepareToEnter();
  EXPECT_EQ(slot->payload[0], 1);
  EXPECT_TRUE(vps.around(1).sints.watched[4]);
  slot->header.type = HvMessageType::kNone;
  vps.vp(1).NotifyEoi(Sint::Of<4>());
  vps.vp(1).PrepareToEnter();
  EXPECT_EQ(slot->payload[0], 2);
}

TEST(HvVpTest, KernelTimersAreToldOfThePageTheSwitchAndTheEndOfMessage) {
  HvVpsForTest vps(Timers::kKernel);
  auto& kernel = vps.around(0).kernel;
  EXPECT_TRUE(vps.Set(0, kHvMsrSimp, Page(5)));
  EXPECT_EQ(kernel.values[kHvMsrSimp], Page(5));
  // For timers that have waited for a page.
  EXPECT_EQ(kernel.values.count(kHvMsrEom), 1u);
  EXPECT_EQ(kernel.sets, 2);
  EXPECT_TRUE(vps.Set(0, kHvMsrSimp, 0));
  EXPECT_EQ(kernel.sets, 3);
  EXPECT_TRUE(vps.Set(0, kHvMsrScontrol, 0));
  EXPECT_EQ(kernel.values[kHvMsrScontrol], 0u);
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer0Config, kHvStimerEnable | uint64_t{4} << kHvStimerSintShift));
  EXPECT_EQ(kernel.sets, 5);
  EXPECT_TRUE(vps.Set(0, kHvMsrEom, 0));
  EXPECT_EQ(kernel.sets, 6);
  // The vectors of SINTs go by SintInterrupts, and the event page is nobody's but ours.
  EXPECT_TRUE(vps.Set(0, kHvMsrSint0, 0x50));
  EXPECT_TRUE(vps.Set(0, kHvMsrSiefp, Page(6)));
  EXPECT_EQ(kernel.sets, 6);
}

TEST(HvVpTest, KernelTimersThatWriteNoMessagesAreNotToldOfTheEndOfMessage) {
  HvVpsForTest vps(Timers::kKernel);
  auto& kernel = vps.around(0).kernel;
  EXPECT_TRUE(vps.Set(0, kHvMsrEom, 0));
  EXPECT_EQ(kernel.sets, 0);
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer0Config, kHvStimerEnable | kHvStimerDirect | 0x50 << kHvStimerVectorShift));
  EXPECT_EQ(kernel.sets, 1);
  EXPECT_TRUE(vps.Set(0, kHvMsrEom, 0));
  EXPECT_EQ(kernel.sets, 1);
  // One of four is enough, and it may go again.
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer3Count - 1, kHvStimerEnable | uint64_t{15} << kHvStimerSintShift));
  EXPECT_TRUE(vps.Set(0, kHvMsrEom, 0));
  EXPECT_EQ(kernel.sets, 3);
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer3Count - 1, 0));
  EXPECT_TRUE(vps.Set(0, kHvMsrEom, 0));
  EXPECT_EQ(kernel.sets, 4);
}

TEST(HvVpTest, AKernelTimersSourceIsLeftToTheVpsThread) {
  HvVpsForTest vps(Timers::kKernel);
  EXPECT_TRUE(vps.Set(1, kHvMsrSimp, Page(5)));
  EXPECT_TRUE(vps.Set(1, kHvMsrSint0 + 4, 0x50));
  EXPECT_TRUE(vps.Set(1, kHvMsrStimer0Config, kHvStimerEnable | uint64_t{4} << kHvStimerSintShift));
  EXPECT_EQ(vps.around(1).kernel.values[kHvMsrStimer0Config], kHvStimerEnable | uint64_t{4} << kHvStimerSintShift);
  vps.vp(1).PrepareToEnter();
  HvMessage message{};
  message.header.type = HvMessageType::kVmBus;
  auto* const slot = reinterpret_cast<HvMessage*>(vps.message_page(1).data()) + 4;
  EXPECT_EQ(vps.vp(1).synic().Post(Poster::OfVp(VpIndex(0)), Sint::Of<4>(), message), HvStatus::kSuccess);
  EXPECT_EQ(slot->header.type, HvMessageType::kNone);
  EXPECT_EQ(vps.around(1).kick.kicks, 1);
  vps.vp(1).PrepareToEnter();
  EXPECT_EQ(slot->header.type, HvMessageType::kVmBus);
  EXPECT_EQ(slot->header.flags, kHvMessagePending);  // the kernel's timer may be waiting behind it
}

TEST(HvVpTest, KernelTimersInMessageModeOnSintZeroAreNotEnabled) {
  HvVpsForTest vps(Timers::kKernel);
  EXPECT_TRUE(vps.Set(0, kHvMsrStimer0Config, kHvStimerEnable));
  EXPECT_EQ(vps.around(0).kernel.values[kHvMsrStimer0Config], 0u);
}

TEST(HvVpTest, DirectKernelTimersNeedTheFeature) {
  HvVpsForTest vps(Timers::kKernel, HvOffer{.max_vps = HvVpsForTest::kVps}.With(HvPrivilege::kSyntheticTimerRegs));
  EXPECT_FALSE(vps.Set(0, kHvMsrStimer0Config, kHvStimerDirect));
  EXPECT_EQ(vps.around(0).kernel.sets, 0);
}

TEST(HvVpTest, WhatTheKernelRefusesFaults) {
  HvVpsForTest vps(Timers::kKernel);
  vps.around(0).kernel.refuses = true;
  EXPECT_FALSE(vps.Set(0, kHvMsrStimer0Config + 1, 5));
  EXPECT_EQ(vps.Get(0, kHvMsrStimer0Config), std::nullopt);
}

TEST(HvVpTest, VpRegistersReadWhatTheMsrsHold) {
  HvVpsForTest vps;
  Caller caller(vps);
  EXPECT_TRUE(vps.Set(2, kHvMsrSint0 + 5, 0x60));
  HvRegisterValue value{};
  EXPECT_EQ(caller.Get(0, HvRegisterName::kVpIndex, value), HvStatus::kSuccess);
  EXPECT_EQ(value, (HvRegisterValue{0, 0}));
  EXPECT_EQ(caller.Get(2, HvRegisterName::kVpIndex, value), HvStatus::kSuccess);
  EXPECT_EQ(value, (HvRegisterValue{2, 0}));
  EXPECT_EQ(caller.Get(2, static_cast<HvRegisterName>(0x000a'0005), value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, 0x60u);
  EXPECT_EQ(caller.Get(0, HvRegisterName::kGuestOsId, value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, 1u);
  const HvCpuid leaves = HvCpuidLeaves(StandardHvOffer({.max_vps = HvVpsForTest::kVps}));
  EXPECT_EQ(caller.Get(0, HvRegisterName::kPrivilegesAndFeatures, value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, uint64_t{leaves[3].ebx} << 32 | leaves[3].eax);
  EXPECT_EQ(value.high, uint64_t{leaves[3].edx} << 32 | leaves[3].ecx);
}

TEST(HvVpTest, VpRegistersOfAnotherVpAreWritten) {
  HvVpsForTest vps;
  Caller caller(vps);
  EXPECT_EQ(caller.Set(2, static_cast<HvRegisterName>(0x000a'0003), 0x70), HvStatus::kSuccess);
  EXPECT_EQ(vps.Get(2, kHvMsrSint0 + 3), 0x70u);
  EXPECT_EQ(vps.Get(0, kHvMsrSint0 + 3), kHvSintReset);
}

TEST(HvVpTest, VpRegistersThatMayNotBe) {
  HvVpsForTest vps;
  Caller caller(vps);
  HvRegisterValue value{};
  EXPECT_EQ(caller.Get(0, HvRegisterName::kRip, value), HvStatus::kAccessDenied);       // higher levels only
  EXPECT_EQ(caller.Get(0, HvRegisterName::kPendingEvent0, value), HvStatus::kAccessDenied);
  EXPECT_EQ(caller.Get(0, static_cast<HvRegisterName>(0x00ff'0000), value), HvStatus::kInvalidParameter);
  EXPECT_EQ(caller.Get(0, HvRegisterName::kVsmCapabilities, value), HvStatus::kInvalidParameter);  // not offered yet
  EXPECT_EQ(caller.Set(0, HvRegisterName::kRip, 1), HvStatus::kAccessDenied);
  EXPECT_EQ(caller.Set(0, HvRegisterName::kVpIndex, 1), HvStatus::kInvalidParameter);   // read-only
  EXPECT_EQ(caller.Set(0, HvRegisterName::kFeatures, 1), HvStatus::kInvalidParameter);
  EXPECT_EQ(caller.Set(0, HvRegisterName::kSint0, 1), HvStatus::kInvalidRegisterValue);  // vector 1, not masked
  EXPECT_EQ(caller.Get(HvVpsForTest::kVps, HvRegisterName::kVpIndex, value), HvStatus::kInvalidVpIndex);
}

}  // namespace
}  // namespace vmm
