// What is delivered, when, in which order, and whom it wakes.
#include <cstdint>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_msr_layout.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/fake_apic_host.h"
#include "vcpu/local_apic/local_apic.h"
#include "vcpu/local_apic/vector_set.h"

namespace vmm {
namespace {

struct LocalApicInterruptsTest : testing::Test {
  LocalApicInterruptsTest() { host.Enable(); }
  FakeApicHost host{{.id = 1}};
};
using LocalApicPriorityTest = LocalApicInterruptsTest;
using LocalApicReceptionTest = LocalApicInterruptsTest;
using LocalApicEoiTest = LocalApicInterruptsTest;
using LocalApicIcrTest = LocalApicInterruptsTest;
using LocalApicLvtTest = LocalApicInterruptsTest;
using LocalApicTimerTest = LocalApicInterruptsTest;
using LocalApicInitTest = LocalApicInterruptsTest;
using LocalApicKickTest = LocalApicInterruptsTest;

// --- Priorities ---

TEST_F(LocalApicPriorityTest, HighestVectorComesFirst) {
  for (const uint8_t vector : {0x31, 0xd2, 0x45, 0x10, 0xff}) host.PostFixed(vector);
  for (const uint8_t vector : {0xff, 0xd2, 0x45, 0x31, 0x10}) {
    EXPECT_EQ(host.TakeInterrupt(), vector);
    host.Eoi();
  }
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

TEST_F(LocalApicPriorityTest, AcceptedVectorMovesFromRequestToService) {
  host.PostFixed(0x41);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x22)), 2u);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x12)), 0u);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x22)), 0u);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x12)), 2u);
  host.Eoi();
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x12)), 0u);
}

TEST_F(LocalApicPriorityTest, ServiceHoldsBackItsOwnClassAndBelow) {
  host.PostFixed(0x45);
  ASSERT_EQ(host.TakeInterrupt(), 0x45);
  host.PostFixed(0x4f);
  host.PostFixed(0x3f);
  EXPECT_EQ(host.apic.NextInterrupt(), std::nullopt);
  EXPECT_FALSE(host.apic.HasDeliverable());
  host.PostFixed(0x50);
  EXPECT_EQ(host.TakeInterrupt(), 0x50);
  host.Eoi();
  EXPECT_EQ(host.apic.NextInterrupt(), std::nullopt);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), 0x4f);
}

TEST_F(LocalApicPriorityTest, TprHoldsBackItsClassAndBelow) {
  for (unsigned tpr = 0; tpr < 16; ++tpr) {
    FakeApicHost other;
    other.Enable();
    other.Write(ApicRegister::kTpr, tpr << 4);
    for (unsigned vector = 16; vector < 256; ++vector) {
      other.PostFixed(static_cast<uint8_t>(vector));
      EXPECT_EQ(other.apic.NextInterrupt().has_value(), vector >> 4 > tpr) << tpr << " " << vector;
    }
  }
}

TEST_F(LocalApicPriorityTest, LoweredTprLetsThePendingThrough) {
  host.Write(ApicRegister::kTpr, 0x50);
  host.PostFixed(0x55);
  EXPECT_FALSE(host.apic.HasDeliverable());
  host.apic.SyncCr8(4);
  EXPECT_EQ(host.apic.NextInterrupt(), 0x55);
}

TEST_F(LocalApicPriorityTest, PprIsTheGreaterOfTprAndService) {
  host.PostFixed(0x68);
  ASSERT_EQ(host.TakeInterrupt(), 0x68);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0x60u);
  host.Write(ApicRegister::kTpr, 0x5f);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0x60u);
  host.Write(ApicRegister::kTpr, 0x67);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0x67u) << "of equal classes TPR with its sub-class";
  host.Write(ApicRegister::kTpr, 0x73);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0x73u);
}

TEST_F(LocalApicPriorityTest, SameVectorMayPendWhileInService) {
  host.PostFixed(0x41);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.PostFixed(0x41);
  host.PostFixed(0x41);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

// --- Reception ---

TEST_F(LocalApicReceptionTest, DisabledBySoftwareDropsFixedAndLowest) {
  host.Write(ApicRegister::kSvr, 0xff);
  host.PostFixed(0x41);
  host.apic.Post(ApicDeliveryMode::kLowestPriority, 0x42);
  EXPECT_FALSE(host.apic.receives_fixed());
  host.Enable();
  EXPECT_FALSE(host.apic.HasDeliverable());
  EXPECT_EQ(host.apic.stats().dropped, 2u);
  EXPECT_TRUE(host.apic.receives_fixed());
}

TEST_F(LocalApicReceptionTest, DisabledBySoftwareTakesTheOtherModes) {
  host.Write(ApicRegister::kSvr, 0xff);
  host.apic.Post(ApicDeliveryMode::kNmi, 0);
  host.apic.Post(ApicDeliveryMode::kSmi, 0);
  EXPECT_TRUE(host.apic.WantsToRun());
  EXPECT_TRUE(host.apic.TakeNmi());
  EXPECT_TRUE(host.apic.TakeSmi());
  host.apic.Post(ApicDeliveryMode::kInit, 0);
  EXPECT_TRUE(host.apic.TakeInit());
  host.apic.Post(ApicDeliveryMode::kStartup, 0x9a);
  EXPECT_EQ(host.apic.TakeStartup(), 0x9a);
}

TEST_F(LocalApicReceptionTest, DisabledBySoftwareDeliversWhatWasPending) {
  host.PostFixed(0x41);
  host.PostFixed(0x31);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.Write(ApicRegister::kSvr, 0xff);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0x40u);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), 0x31);
}

TEST_F(LocalApicReceptionTest, SelfIpiWhileDisabledBySoftwareIsDropped) {
  host.Write(ApicRegister::kSvr, 0xff);
  host.Write(ApicRegister::kIcrLow, 0x4'4041);
  EXPECT_EQ(host.apic.NextInterrupt(), std::nullopt);
}

TEST_F(LocalApicReceptionTest, NmiIsTakenOnceAndIgnoresPriority) {
  host.Write(ApicRegister::kTpr, 0xff);
  host.apic.Post(ApicDeliveryMode::kNmi, 0);
  host.apic.Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_TRUE(host.apic.WantsToRun());
  EXPECT_TRUE(host.apic.TakeNmi());
  EXPECT_FALSE(host.apic.TakeNmi());
  EXPECT_FALSE(host.apic.WantsToRun());
}

TEST_F(LocalApicReceptionTest, ExtIntIsAnEvent) {
  host.apic.Post(ApicDeliveryMode::kExtInt, 0);
  EXPECT_TRUE(host.apic.HasEvent());
  EXPECT_TRUE(host.apic.TakeExtInt());
}

TEST_F(LocalApicReceptionTest, RemoteReadIsDropped) {
  host.apic.Post(ApicDeliveryMode::kRemoteRead, 0x41);
  EXPECT_FALSE(host.apic.WantsToRun());
}

TEST_F(LocalApicReceptionTest, TriggerModeIsShown) {
  host.PostFixed(0x61, /*level=*/true);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x1b)), 2u);
  host.PostFixed(0x61);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x1b)), 0u);
}

// --- EOI ---

TEST_F(LocalApicEoiTest, EndsTheHighestInService) {
  host.PostFixed(0x31);
  ASSERT_EQ(host.TakeInterrupt(), 0x31);
  host.PostFixed(0x51);
  ASSERT_EQ(host.TakeInterrupt(), 0x51);
  EXPECT_EQ(host.apic.priority_class(), 5);
  host.Eoi();
  EXPECT_EQ(host.apic.priority_class(), 3);
  host.Eoi();
  EXPECT_EQ(host.apic.priority_class(), 0);
}

TEST_F(LocalApicEoiTest, WithNothingInServiceIsNothing) {
  host.Eoi();
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0u);
  EXPECT_TRUE(host.bus.eois.empty());
}

TEST_F(LocalApicEoiTest, OfALevelIsBroadcastAndOfAnEdgeIsNot) {
  host.PostFixed(0x61, /*level=*/true);
  ASSERT_EQ(host.TakeInterrupt(), 0x61);
  host.Eoi();
  host.PostFixed(0x61);
  ASSERT_EQ(host.TakeInterrupt(), 0x61);
  host.Eoi();
  EXPECT_EQ(host.bus.eois, std::vector<uint8_t>({0x61}));
}

TEST_F(LocalApicEoiTest, SuppressedBroadcastIsNotSent) {
  FakeApicHost other({.suppresses_eoi_broadcasts = true});
  other.Write(ApicRegister::kSvr, 0x11ff);
  other.PostFixed(0x61, /*level=*/true);
  ASSERT_EQ(other.TakeInterrupt(), 0x61);
  other.Eoi();
  EXPECT_TRUE(other.bus.eois.empty());
}

TEST_F(LocalApicEoiTest, OfAWatchedVectorIsObserved) {
  FakeEoiObserver observer;
  VectorSet watched;
  watched.Set(0x51);
  host.apic.SetEoiObserver(&observer);
  host.apic.SetWatchedEois(watched);
  for (const uint8_t vector : {0x61, 0x51}) {
    host.PostFixed(vector);
    ASSERT_EQ(host.TakeInterrupt(), vector);
    host.Eoi();
  }
  EXPECT_EQ(observer.vectors, std::vector<uint8_t>({0x51}));
}

TEST_F(LocalApicEoiTest, ByEachRegisterIsTheSame) {
  ASSERT_TRUE(host.EnableX2apic());
  host.PostFixed(0x61);
  ASSERT_EQ(host.TakeInterrupt(), 0x61);
  ASSERT_TRUE(host.WriteX2(ApicRegister::kEoi, 0));
  EXPECT_EQ(host.apic.priority_class(), 0);
  host.PostFixed(0x61);
  ASSERT_EQ(host.TakeInterrupt(), 0x61);
  ASSERT_TRUE(host.apic.WriteMsr(kHvMsrEoi, 0));
  EXPECT_EQ(host.apic.priority_class(), 0);
}

TEST_F(LocalApicEoiTest, AutoEoiVectorIsNeverInService) {
  VectorSet vectors;
  vectors.Set(0x71);
  host.apic.SetAutoEoi(vectors);
  host.PostFixed(0x71);
  EXPECT_EQ(host.TakeInterrupt(), 0x71);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0u);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
  host.PostFixed(0x31);
  EXPECT_EQ(host.TakeInterrupt(), 0x31);
}

// --- ICR ---

TEST_F(LocalApicIcrTest, EachCombinationOfModeAndShorthandIsAsTheManualSays) {
  // Fixed with any; the others without shorthand or to all but self; remote read and ExtINT never.
  for (uint32_t mode = 0; mode < 8; ++mode) {
    for (uint32_t shorthand = 0; shorthand < 4; ++shorthand) {
      FakeApicHost other({.id = 1});
      other.Enable();
      other.Write(ApicRegister::kIcrHigh, 3u << 24);
      other.Write(ApicRegister::kIcrLow, 0x4041 | mode << 8 | shorthand << 18);
      const bool valid = mode == 0 || (mode != 3 && mode != 7 && (shorthand == 0 || shorthand == 3));
      EXPECT_EQ(other.apic.stats().sent, valid ? 1u : 0u) << mode << " " << shorthand;
      EXPECT_EQ(other.apic.stats().invalid_sends, valid ? 0u : 1u);
      if (!valid || shorthand == 1) {
        EXPECT_TRUE(other.bus.messages.empty());
        EXPECT_EQ(other.apic.NextInterrupt().has_value(), valid);
        continue;
      }
      ASSERT_EQ(other.bus.messages.size(), 1u);
      const ApicDestination destination =
          shorthand == 0 ? ApicDestination{.number = 3} : ApicDestination{.is_broadcast = true};
      EXPECT_EQ(other.bus.messages[0], (ApicMessage{.mode = static_cast<ApicDeliveryMode>(mode),
                                                    .vector = 0x41,
                                                    .destination = destination,
                                                    .but_sender = shorthand == 3,
                                                    .sender = 1}));
    }
  }
}

TEST_F(LocalApicIcrTest, HighHalfAloneSendsNothing) {
  host.Write(ApicRegister::kIcrHigh, 3u << 24);
  EXPECT_TRUE(host.bus.messages.empty());
  host.Write(ApicRegister::kIcrLow, 0x4841);
  host.Write(ApicRegister::kIcrLow, 0x4842);
  ASSERT_EQ(host.bus.messages.size(), 2u) << "the high half stays for the next";
  EXPECT_EQ(host.bus.messages[1].destination, (ApicDestination{.number = 3, .is_logical = true}));
}

TEST_F(LocalApicIcrTest, X2apicWriteIsOneMessageTo32Bits) {
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.WriteX2(ApicRegister::kIcrLow, 0x1234'5678'0000'4841));
  ASSERT_EQ(host.bus.messages.size(), 1u);
  EXPECT_EQ(host.bus.messages[0].destination, (ApicDestination{.number = 0x1234'5678, .is_logical = true}));
  EXPECT_EQ(host.ReadX2(ApicRegister::kIcrLow), 0x1234'5678'0000'4841u);
}

TEST_F(LocalApicIcrTest, BroadcastHasItsNumberInEachMode) {
  host.Write(ApicRegister::kIcrHigh, 0xffu << 24);
  host.Write(ApicRegister::kIcrLow, 0x4041);
  EXPECT_TRUE(host.bus.messages.back().destination.is_broadcast);
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.WriteX2(ApicRegister::kIcrLow, 0xff'0000'4041));
  EXPECT_FALSE(host.bus.messages.back().destination.is_broadcast);
  ASSERT_TRUE(host.WriteX2(ApicRegister::kIcrLow, 0xffff'ffff'0000'4041));
  EXPECT_TRUE(host.bus.messages.back().destination.is_broadcast);
}

TEST_F(LocalApicIcrTest, InitLevelDeassertIsNothing) {
  host.Write(ApicRegister::kIcrLow, 0x8500);
  EXPECT_TRUE(host.bus.messages.empty());
  host.Write(ApicRegister::kIcrLow, 0xc500);
  ASSERT_EQ(host.bus.messages.size(), 1u);
  EXPECT_EQ(host.bus.messages[0].mode, ApicDeliveryMode::kInit);
}

TEST_F(LocalApicIcrTest, SelfIpiIsAnEdgeWhateverTheTriggerBit) {
  host.Write(ApicRegister::kIcrLow, 0x4'c041);
  EXPECT_EQ(host.Read(static_cast<ApicRegister>(0x1a)), 0u);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(LocalApicIcrTest, SelfIpiRegisterRaisesAndLeavesIcr) {
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.WriteX2(ApicRegister::kIcrLow, 0x3'0000'4055));
  ASSERT_TRUE(host.WriteX2(ApicRegister::kSelfIpi, 0x66));
  EXPECT_EQ(host.ReadX2(ApicRegister::kIcrLow), 0x3'0000'4055u);
  EXPECT_EQ(host.TakeInterrupt(), 0x66);
  EXPECT_EQ(host.bus.messages.size(), 1u);
}

// --- Local vector table ---

TEST_F(LocalApicLvtTest, MaskedEntryRaisesNothing) {
  host.Write(ApicRegister::kLvtThermal, 0x41 | kLvtMasked);
  host.Write(ApicRegister::kLvtPerformance, 0x42 | kLvtMasked);
  host.apic.RaiseThermal();
  host.apic.RaisePerformance();
  host.apic.PostLint(0);
  host.apic.PostLint(1);
  host.apic.RunPending();
  EXPECT_FALSE(host.apic.WantsToRun());
}

TEST_F(LocalApicLvtTest, ThermalAndPerformanceRaiseTheirVectors) {
  host.Write(ApicRegister::kLvtThermal, 0x41);
  host.Write(ApicRegister::kLvtPerformance, 0x52);
  host.apic.RaiseThermal();
  EXPECT_EQ(host.Read(ApicRegister::kLvtThermal), 0x41u);
  host.apic.RaisePerformance();
  EXPECT_EQ(host.Read(ApicRegister::kLvtPerformance), 0x52 | kLvtMasked) << "masked by its own interrupt";
  EXPECT_EQ(host.TakeInterrupt(), 0x52);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(LocalApicLvtTest, PerformanceAsNmiMasksItselfToo) {
  host.Write(ApicRegister::kLvtPerformance, 0x400);
  host.apic.RaisePerformance();
  EXPECT_EQ(host.Read(ApicRegister::kLvtPerformance), 0x400 | kLvtMasked);
  EXPECT_TRUE(host.apic.TakeNmi());
}

TEST_F(LocalApicLvtTest, PinsDeliverInTheModeOfTheirEntry) {
  for (const unsigned pin : {0u, 1u}) {
    const ApicRegister entry = pin == 0 ? ApicRegister::kLvtLint0 : ApicRegister::kLvtLint1;
    const auto pulse = [&](uint32_t lvt) {
      host.Write(entry, lvt);
      host.apic.PostLint(pin);
      EXPECT_FALSE(host.apic.WantsToRun()) << "not before RunPending";
      host.apic.RunPending();
    };
    pulse(0x041);
    EXPECT_EQ(host.TakeInterrupt(), 0x41);
    host.Eoi();
    pulse(0x200);
    EXPECT_TRUE(host.apic.TakeSmi());
    pulse(0x400);
    EXPECT_TRUE(host.apic.TakeNmi());
    pulse(0x700);
    EXPECT_TRUE(host.apic.TakeExtInt());
    for (const uint32_t reserved : {0x141u, 0x341u, 0x641u}) pulse(reserved);
    EXPECT_FALSE(host.apic.WantsToRun());
  }
}

TEST_F(LocalApicLvtTest, InitOfAPinResets) {
  host.Write(ApicRegister::kLvtLint1, 0x500);
  host.apic.PostLint(1);
  host.apic.RunPending();
  EXPECT_TRUE(host.apic.TakeInit());
  EXPECT_EQ(host.Read(ApicRegister::kLvtLint1), kLvtMasked);
}

TEST_F(LocalApicLvtTest, InitAndExtIntAreOfPinsOnly) {
  for (const uint32_t lvt : {0x500u, 0x700u}) {
    host.Write(ApicRegister::kLvtThermal, lvt);
    host.apic.RaiseThermal();
    EXPECT_FALSE(host.apic.HasEvent());
  }
}

TEST_F(LocalApicLvtTest, LevelOfLint0IsHeldUntilItsEoi) {
  host.Write(ApicRegister::kLvtLint0, 0x41 | kLvtLevel);
  host.apic.PostLint(0);
  host.apic.RunPending();
  EXPECT_EQ(host.Read(ApicRegister::kLvtLint0), 0x41 | kLvtLevel | kLvtRemoteIrr);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.apic.PostLint(0);
  host.apic.RunPending();
  host.Write(ApicRegister::kLvtLint0, 0x41 | kLvtLevel);
  EXPECT_EQ(host.Read(ApicRegister::kLvtLint0), 0x41 | kLvtLevel | kLvtRemoteIrr) << "read-only";
  host.Eoi();
  EXPECT_EQ(host.Read(ApicRegister::kLvtLint0), 0x41 | kLvtLevel);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
  host.apic.PostLint(0);
  host.apic.RunPending();
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(LocalApicLvtTest, Lint1IsAnEdgeWhateverItsTriggerBit) {
  host.Write(ApicRegister::kLvtLint1, 0x41 | kLvtLevel);
  host.apic.PostLint(1);
  host.apic.RunPending();
  EXPECT_EQ(host.Read(ApicRegister::kLvtLint1), 0x41 | kLvtLevel);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.Eoi();
  EXPECT_TRUE(host.bus.eois.empty());
}

TEST_F(LocalApicLvtTest, ChangedEntryForgetsRemoteIrr) {
  host.Write(ApicRegister::kLvtLint0, 0x41 | kLvtLevel);
  host.apic.PostLint(0);
  host.apic.RunPending();
  host.Write(ApicRegister::kLvtLint0, 0x42 | kLvtLevel);
  EXPECT_EQ(host.Read(ApicRegister::kLvtLint0), 0x42 | kLvtLevel);
}

// --- The timer ---

TEST_F(LocalApicTimerTest, OneShotInterruptsAtItsDeadline) {
  host.Write(ApicRegister::kLvtTimer, 0x41);
  host.Write(ApicRegister::kDivide, 0xb);
  host.Write(ApicRegister::kInitialCount, 500);
  EXPECT_EQ(host.deadline.ticks, host.clock.ticks + 500);
  host.clock.ticks += 200;
  EXPECT_EQ(host.Read(ApicRegister::kCurrentCount), 300u);
  host.clock.ticks += 300;
  host.apic.OnDeadline();
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.Read(ApicRegister::kCurrentCount), 0u);
}

TEST_F(LocalApicTimerTest, CountOfZeroIsNotReadBeforeTheInterruptIsPending) {
  host.Write(ApicRegister::kLvtTimer, 0x41);
  host.Write(ApicRegister::kDivide, 0xb);
  host.Write(ApicRegister::kInitialCount, 500);
  host.clock.ticks += 500;
  EXPECT_EQ(host.Read(ApicRegister::kCurrentCount), 0u);
  EXPECT_EQ(host.apic.NextInterrupt(), 0x41);
}

TEST_F(LocalApicTimerTest, PeriodicInterruptsAgainAndAgain) {
  host.Write(ApicRegister::kLvtTimer, 0x41 | kLvtTimerPeriodic);
  host.Write(ApicRegister::kInitialCount, 500);  // divided by two
  for (int n = 0; n < 3; ++n) {
    ASSERT_TRUE(host.deadline.ticks.has_value());
    EXPECT_EQ(*host.deadline.ticks, 2000u + 1000u * n);
    host.clock.ticks = *host.deadline.ticks;
    host.apic.OnDeadline();
    EXPECT_EQ(host.TakeInterrupt(), 0x41);
    host.Eoi();
  }
}

TEST_F(LocalApicTimerTest, MaskedTimerDoesNotInterruptAndLosesItsEnd) {
  host.Write(ApicRegister::kLvtTimer, 0x41 | kLvtMasked);
  host.Write(ApicRegister::kInitialCount, 500);
  EXPECT_FALSE(host.deadline.is_set());
  host.clock.ticks += 2000;
  host.Write(ApicRegister::kLvtTimer, 0x41);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

TEST_F(LocalApicTimerTest, EndBeforeTheMaskIsKept) {
  host.Write(ApicRegister::kLvtTimer, 0x41);
  host.Write(ApicRegister::kInitialCount, 500);
  host.clock.ticks += 1000;
  host.Write(ApicRegister::kLvtTimer, 0x41 | kLvtMasked);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(LocalApicTimerTest, TscDeadlineInterruptsAndReadsZeroThen) {
  host.Write(ApicRegister::kLvtTimer, 0x41 | kLvtTimerTscDeadline);
  ASSERT_TRUE(host.apic.WriteMsr(kMsrTscDeadline, 60'000));
  EXPECT_EQ(host.deadline.tsc, 60'000u);
  EXPECT_EQ(host.ReadMsr(kMsrTscDeadline), 60'000u);
  host.clock.tsc = 60'000;
  EXPECT_EQ(host.ReadMsr(kMsrTscDeadline), 0u);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(LocalApicTimerTest, TscDeadlineInThePastInterruptsAtOnce) {
  host.Write(ApicRegister::kLvtTimer, 0x41 | kLvtTimerTscDeadline);
  ASSERT_TRUE(host.apic.WriteMsr(kMsrTscDeadline, 1));
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_FALSE(host.deadline.is_set());
}

TEST_F(LocalApicTimerTest, TscDeadlineMsrOutsideItsModeIsDropped) {
  ASSERT_TRUE(host.apic.WriteMsr(kMsrTscDeadline, 60'000));
  EXPECT_EQ(host.ReadMsr(kMsrTscDeadline), 0u);
  EXPECT_FALSE(host.deadline.is_set());
}

TEST_F(LocalApicTimerTest, TscDeadlineIsNotThereWhereNotOffered) {
  FakeApicHost other({.has_tsc_deadline = false});
  EXPECT_EQ(other.ReadMsr(kMsrTscDeadline), std::nullopt);
  EXPECT_FALSE(other.apic.WriteMsr(kMsrTscDeadline, 0));
  other.Enable();
  other.Write(ApicRegister::kLvtTimer, 0x41 | kLvtTimerTscDeadline);
  EXPECT_EQ(other.Read(ApicRegister::kLvtTimer), 0x41u);
  ASSERT_TRUE(other.EnableX2apic());
  EXPECT_FALSE(other.WriteX2(ApicRegister::kLvtTimer, 0x41 | kLvtTimerTscDeadline));
}

TEST_F(LocalApicTimerTest, EarlyDeadlineIsSetAgain) {
  host.Write(ApicRegister::kLvtTimer, 0x41);
  host.Write(ApicRegister::kInitialCount, 500);
  host.deadline.ticks.reset();
  host.apic.OnDeadline();
  EXPECT_EQ(host.deadline.ticks, host.clock.ticks + 1000);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

// --- INIT and reset ---

TEST_F(LocalApicInitTest, RegistersAreResetAndTheModeStays) {
  ASSERT_TRUE(host.EnableX2apic());
  host.PostFixed(0x71);
  ASSERT_EQ(host.TakeInterrupt(), 0x71);
  host.PostFixed(0x81);
  ASSERT_TRUE(host.WriteX2(ApicRegister::kTpr, 0x50));
  ASSERT_TRUE(host.WriteX2(ApicRegister::kLvtTimer, 0x41));
  ASSERT_TRUE(host.WriteX2(ApicRegister::kInitialCount, 100));
  host.apic.Post(ApicDeliveryMode::kInit, 0);
  ASSERT_TRUE(host.apic.TakeInit());
  EXPECT_FALSE(host.apic.TakeInit());
  EXPECT_EQ(host.apic.apic_base(), 0xfee0'0c00u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kId), 1u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kSvr), 0xffu);
  EXPECT_EQ(host.ReadX2(ApicRegister::kPpr), 0u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kLvtTimer), kLvtMasked);
  EXPECT_EQ(host.ReadX2(ApicRegister::kInitialCount), 0u);
  EXPECT_FALSE(host.deadline.is_set());
  EXPECT_EQ(host.apic.NextInterrupt(), std::nullopt);
}

TEST_F(LocalApicInitTest, DropsEventsThatCameWithItButTheSipiBehind) {
  host.apic.Post(ApicDeliveryMode::kNmi, 0);
  host.apic.Post(ApicDeliveryMode::kStartup, 0x11);
  host.apic.Post(ApicDeliveryMode::kInit, 0);
  host.apic.Post(ApicDeliveryMode::kStartup, 0x22);
  host.apic.Post(ApicDeliveryMode::kStartup, 0x33);
  ASSERT_TRUE(host.apic.TakeInit());
  EXPECT_FALSE(host.apic.TakeNmi());
  EXPECT_EQ(host.apic.TakeStartup(), 0x22);
  EXPECT_EQ(host.apic.TakeStartup(), std::nullopt);
}

TEST_F(LocalApicInitTest, ResetIsAsAfterPowerUp) {
  ASSERT_TRUE(host.EnableX2apic());
  host.PostFixed(0x81);
  host.apic.Post(ApicDeliveryMode::kStartup, 0x22);
  host.apic.Reset();
  EXPECT_EQ(host.apic.apic_base(), 0xfee0'0800u);
  EXPECT_EQ(host.Read(ApicRegister::kSvr), 0xffu);
  EXPECT_FALSE(host.apic.WantsToRun());
}

// --- Kicks ---

TEST_F(LocalApicKickTest, DeliverableVectorKicksTheArmedOnce) {
  ASSERT_TRUE(host.apic.Arm());
  host.PostFixed(0x41);
  host.PostFixed(0x51);
  host.apic.Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_EQ(host.kick.kicks, 1);
  EXPECT_EQ(host.apic.stats().kicks, 1u);
}

TEST_F(LocalApicKickTest, VectorBehindThePriorityDoesNot) {
  host.Write(ApicRegister::kTpr, 0x50);
  ASSERT_TRUE(host.apic.Arm());
  host.PostFixed(0x5f);
  EXPECT_EQ(host.kick.kicks, 0);
  host.PostFixed(0x60);
  EXPECT_EQ(host.kick.kicks, 1);
}

TEST_F(LocalApicKickTest, ArmRefusesOverWhatIsDeliverable) {
  host.PostFixed(0x41);
  EXPECT_FALSE(host.apic.Arm());
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.PostFixed(0x42);
  EXPECT_TRUE(host.apic.Arm()) << "not deliverable while 0x41 is in service";
}

TEST_F(LocalApicKickTest, WaitingForTheWindowOnlyEventsKick) {
  host.PostFixed(0x41);
  ASSERT_TRUE(host.apic.ArmForWindow());
  host.PostFixed(0xf1);
  EXPECT_EQ(host.kick.kicks, 0);
  host.apic.Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_EQ(host.kick.kicks, 1);
}

TEST_F(LocalApicKickTest, AwakeIsNotKicked) {
  ASSERT_TRUE(host.apic.Arm());
  host.apic.Disarm();
  host.PostFixed(0x41);
  host.apic.Post(ApicDeliveryMode::kInit, 0);
  EXPECT_EQ(host.kick.kicks, 0);
}

TEST_F(LocalApicKickTest, DroppedMessageDoesNotKick) {
  host.Write(ApicRegister::kSvr, 0xff);
  ASSERT_TRUE(host.apic.Arm());
  host.PostFixed(0x41);
  EXPECT_EQ(host.kick.kicks, 0);
}

}  // namespace
}  // namespace vmm
