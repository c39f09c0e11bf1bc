#include "vmm/hyperv/memory_intercepts.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/status_matchers.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/vsm/intercept_message_layout.h"
#include "kvm/uapi.h"
#include "memory/gpa.h"
#include "memory/guest_view.h"
#include "memory/page_rights.h"
#include "vmm/hyperv/stopped_level_for_test.h"

namespace vmm {
namespace {

using Machine = StoppedLevelForTest;

constexpr Vtl kVtl2{2};
constexpr uint64_t kResume = 1 << 16;  // RFLAGS.RF
constexpr uint32_t kPatience = 100'000, kUnexplainedTries = 16;
constexpr size_t kMostHeld = 130;
constexpr uint8_t kGvaKnown = kHvAccessGvaValid | kHvAccessGvaGpaValid;

constexpr Gpa At(Gpfn page, uint64_t offset = 0) { return Gpa(page) + offset; }

class MemoryInterceptsTest : public testing::Test {
 protected:
  std::unique_ptr<MemoryIntercepts> Make(Vtl vtl) {
    return std::make_unique<MemoryIntercepts>(
        Machine::kVp, vtl,
        MemoryIntercepts::Environment{.processor = *machine_.levels.processor,
                                      .scheduler = machine_.scheduler,
                                      .memory = *machine_.memory,
                                      .level_memory = *machine_.level_memory.at(vtl.raw()),
                                      .protections = *machine_.protections,
                                      .view = *machine_.views.at(vtl.raw()),
                                      .synic_of = [this](Vtl of) { return of == deaf_ ? nullptr : machine_.FindSynic(of); }});
  }
  void Protect(Gpfn page, PageRights rights = PageRights::None(), Vtl owner = kVtl1) { machine_.Protect(owner, page, rights); }
  kvm_regs& regs() { return machine_.regs(); }
  MemoryIntercepts::Stats stats() const { return intercepts_->stats(); }

  bool Fault(std::optional<Gpfn> named = std::nullopt) {
    machine_.Fault(named);
    return intercepts_->OnFault();
  }
  // The emulator reads `bytes` bytes, or stores `value`.
  AccessAnswer Read(Gpa gpa, size_t bytes) {
    machine_.Exit();
    data_.assign(bytes, std::byte{0x77});
    return intercepts_->OnEmulatedAccess(gpa, data_, /*write=*/false);
  }
  AccessAnswer Write(Gpa gpa, std::vector<uint8_t> value) {
    machine_.Exit();
    data_.clear();
    for (const uint8_t byte : value) data_.push_back(std::byte{byte});
    return intercepts_->OnEmulatedAccess(gpa, data_, /*write=*/true);
  }
  AccessAnswer ReadPort(uint8_t bytes, uint32_t count) {
    machine_.Exit();
    data_.assign(size_t{bytes} * count, std::byte{0x77});
    return intercepts_->OnPortRead({.port = 0x60, .bytes = bytes, .count = count, .write = false}, data_);
  }
  std::vector<uint8_t> data() const {
    std::vector<uint8_t> bytes;
    for (const std::byte byte : data_) bytes.push_back(static_cast<uint8_t>(byte));
    return bytes;
  }
  uint8_t Byte(Gpa gpa) {
    std::byte byte{};
    EXPECT_TRUE(machine_.memory->Read(gpa, std::span(&byte, 1)));
    return static_cast<uint8_t>(byte);
  }

  // The one message that waits at `level`, and none elsewhere.
  HvMemoryIntercept Told(Vtl level = kVtl1) {
    HvMemoryIntercept payload{};
    const std::vector<HvMessage> messages = machine_.Take(level);
    EXPECT_EQ(messages.size(), 1u);
    EXPECT_TRUE(machine_.Take(level == kVtl1 ? kVtl2 : kVtl1).empty());
    if (messages.empty()) return payload;
    EXPECT_EQ(messages[0].header.type, HvMessageType::kGpaIntercept);
    EXPECT_EQ(messages[0].header.payload_size, sizeof(payload));
    EXPECT_EQ(messages[0].header.origination_id, 0u);
    std::memcpy(&payload, messages[0].payload, sizeof(payload));
    return payload;
  }
  bool ToldNothing() { return machine_.Take(kVtl1).empty() && machine_.Take(kVtl2).empty(); }

  Machine machine_;
  std::optional<Vtl> deaf_;  // has no SynIC
  std::unique_ptr<MemoryIntercepts> intercepts_ = Make(kVtl0);
  std::vector<std::byte> data_;
};

// --- Faults ---

TEST_F(MemoryInterceptsTest, ARefusedReadIsToldWithAllThatIsKnownOfIt) {
  machine_.Code({0x48, 0x8b, 0x03, 0xcc});  // mov rax, [rbx]
  regs().rax = 0xa0;
  regs().rbx = Machine::kData + 0x18;
  regs().r15 = 0xf0;
  regs().rflags = 0x202;
  machine_.sregs().cr8 = 3;
  Protect(Machine::kDataPage);
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(Fault());
  EXPECT_FALSE(machine_.Runs());

  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.vp_index, Machine::kVp.raw());
  EXPECT_EQ(told.header.instruction_length, 3 | 3 << 4);
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.header.execution_state, kHvExecutionProtected | kHvExecutionLongMode);
  EXPECT_EQ(told.header.cs.selector, 0x10);
  EXPECT_EQ(told.header.cs.attributes, 0xa09b);
  EXPECT_EQ(told.header.rip, Machine::kCode);
  EXPECT_EQ(told.header.rflags, 0x202 | kResume);
  EXPECT_EQ(told.cache_type, kHvCacheWriteBack);
  EXPECT_EQ(told.access_info, kGvaKnown);
  EXPECT_EQ(told.gva, Machine::kData + 0x18);
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 0x18).raw());
  EXPECT_EQ(told.instruction_byte_count, 16);
  EXPECT_EQ(told.instruction_bytes[0], 0x48);
  EXPECT_EQ(told.instruction_bytes[1], 0x8b);
  EXPECT_EQ(told.instruction_bytes[2], 0x03);
  EXPECT_EQ(told.instruction_bytes[3], 0xcc);
  EXPECT_EQ(told.ds.selector, 0x18);
  EXPECT_EQ(told.ss.selector, 0x18);
  EXPECT_EQ(told.gprs[0], 0xa0u);
  EXPECT_EQ(told.gprs[3], Machine::kData + 0x18);
  EXPECT_EQ(told.gprs[15], 0xf0u);
  EXPECT_EQ(stats().reads, 1u);
  EXPECT_EQ(stats().writes + stats().executes + stats().again + stats().named + stats().emulated, 0u);
}

TEST_F(MemoryInterceptsTest, ARefusedWriteIsToldAtItsLowestRefusedByte) {
  machine_.Code({0x48, 0x89, 0x03});  // mov [rbx], rax
  regs().rbx = Machine::kData + kPageBytes - 3;
  Protect(Machine::kNextPage, Machine::kReadExecute);
  EXPECT_TRUE(Fault());
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.gva, Machine::kData + kPageBytes);
  EXPECT_EQ(told.gpa, At(Machine::kNextPage).raw());
  EXPECT_EQ(stats().writes, 1u);
  EXPECT_EQ(stats().reads, 0u);
}

TEST_F(MemoryInterceptsTest, ARefusedFetchHasNoInstruction) {
  regs().rip = Machine::kCode + 0x40;
  Protect(Machine::kCodePage);
  EXPECT_TRUE(Fault());
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kExecute);
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(told.header.rip, Machine::kCode + 0x40);
  EXPECT_EQ(told.header.rflags, 2u);
  EXPECT_EQ(told.instruction_byte_count, 0);
  EXPECT_EQ(told.gpa, At(Machine::kCodePage, 0x40).raw());
  EXPECT_EQ(stats().executes, 1u);
}

// The processor takes the reading of tables as a write.
TEST_F(MemoryInterceptsTest, APageTableThatMayOnlyBeReadIsToldWithoutALinearAddress) {
  machine_.Code({0x48, 0x8b, 0x03});  // mov rax, [rbx]
  regs().rbx = Machine::kData;
  const Gpa entry = machine_.tables->EntryAt(Machine::kData, 1);
  Protect(entry.page(), Machine::kReadExecute);
  EXPECT_TRUE(Fault());
  const HvMemoryIntercept told = Told();
  // The one that is met first: the fetch's, in the same table.
  EXPECT_EQ(Gpa(told.gpa).page(), entry.page());
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.access_info, 0);
  EXPECT_EQ(told.gva, 0u);
}

TEST_F(MemoryInterceptsTest, TheLowestLevelThatRefusesIsTold) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  Protect(Machine::kDataPage, PageRights::None(), kVtl2);
  EXPECT_TRUE(Fault());
  EXPECT_EQ(Told(kVtl2).header.access, HvInterceptAccess::kRead);
  Protect(Machine::kDataPage, Machine::kReadExecute, kVtl1);  // that would let it be read
  EXPECT_TRUE(Fault());
  Told(kVtl2);
  Protect(Machine::kDataPage, PageRights::None(), kVtl1);
  EXPECT_TRUE(Fault());
  Told(kVtl1);
  EXPECT_EQ(stats().reads, 3u);
}

TEST_F(MemoryInterceptsTest, ALevelAboveVtl0IsRestrictedByThoseAboveIt) {
  const auto of_vtl1 = Make(kVtl1);
  machine_.Code({0x48, 0x89, 0x03});
  machine_.regs(kVtl1).rbx = Machine::kData + 8;
  Protect(Machine::kDataPage, PageRights::None(), kVtl1);  // which does not restrict itself
  machine_.Fault(std::nullopt, kVtl1);
  EXPECT_TRUE(of_vtl1->OnFault());
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(of_vtl1->stats().again, 1u);
  Protect(Machine::kDataPage, Machine::kReadExecute, kVtl2);
  machine_.Fault(std::nullopt, kVtl1);
  EXPECT_TRUE(of_vtl1->OnFault());
  const HvMemoryIntercept told = Told(kVtl2);
  EXPECT_EQ(told.header.execution_state, kHvExecutionProtected | kHvExecutionLongMode | 1 << kHvExecutionVtlShift);
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 8).raw());
}

TEST_F(MemoryInterceptsTest, TheDeliveryOfAnEventIsToldWithoutAnInstruction) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  machine_.sregs().idt = {.base = Machine::kData + kPageBytes, .limit = 0xfff, .padding = {}};
  machine_.events().interrupt.injected = 1;
  machine_.events().interrupt.nr = 0x30;
  machine_.events().interrupt.shadow = 1;
  Protect(Machine::kDataPage);
  Protect(Machine::kNextPage);
  EXPECT_TRUE(Fault());
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kNextPage, 0x30 * 16).raw());
  EXPECT_EQ(told.header.execution_state,
            kHvExecutionProtected | kHvExecutionLongMode | kHvExecutionInterruptionPending | kHvExecutionInterruptShadow);
  EXPECT_EQ(told.instruction_byte_count, 0);
  EXPECT_EQ(told.header.instruction_length, 0);
}

TEST_F(MemoryInterceptsTest, TheStoppedLevelRunsOnceTheLevelAboveHasBeenEntered) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  Protect(Machine::kDataPage);
  EXPECT_TRUE(Fault());
  EXPECT_FALSE(machine_.Runs());
  EXPECT_FALSE(machine_.Runs());
  EXPECT_TRUE(machine_.VisitVtl1());
  EXPECT_TRUE(machine_.Runs());
  // It stands where it was, with what it had.
  EXPECT_EQ(machine_.levels.vcpu(0).synced_regs().rip, Machine::kCode);
  EXPECT_EQ(machine_.levels.vcpu(0).synced_regs().rax, 0u);
  EXPECT_TRUE(Fault());
  EXPECT_FALSE(machine_.Runs());
  EXPECT_EQ(machine_.Take(kVtl1).size(), 2u);
}

TEST_F(MemoryInterceptsTest, WhatNothingRefusesIsMadeAgain) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  EXPECT_TRUE(Fault());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().again, 1u);
  EXPECT_EQ(stats().unknown, 0u);
  EXPECT_EQ(stats().reads, 0u);
}

// The guest's own fault, before what would be refused.
TEST_F(MemoryInterceptsTest, AFaultOfTheGuestsIsMadeAgain) {
  machine_.Code({0x48, 0xa5});  // movsq
  regs().rsi = 0x70'0000;       // mapped nowhere
  regs().rdi = Machine::kData;
  Protect(Machine::kDataPage);
  EXPECT_TRUE(Fault());
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().again, 1u);
  EXPECT_EQ(stats().unknown, 0u);
}

TEST_F(MemoryInterceptsTest, AnUnknownInstructionIsMadeAgain) {
  machine_.Code({0x0f, 0x04});  // none
  Protect(Machine::kDataPage);
  EXPECT_TRUE(Fault());
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(stats().unknown, 1u);
  EXPECT_EQ(stats().again, 1u);
}

TEST_F(MemoryInterceptsTest, PatienceEndsAtOneInstructionAndBeginsAnewAtEach) {
  machine_.levels.vcpu(0).synced_regs().rip = Machine::kDevice;  // cannot be fetched, which is soon known
  uint32_t times = 0;
  while (times <= kPatience && intercepts_->OnFault()) ++times;
  EXPECT_EQ(times, kPatience);
  EXPECT_FALSE(intercepts_->OnFault());
  machine_.levels.vcpu(0).synced_regs().rip = Machine::kDevice + 1;
  EXPECT_TRUE(intercepts_->OnFault());
  EXPECT_EQ(stats().again, kPatience + 3);
  EXPECT_EQ(stats().unknown, kPatience + 3);
}

// The fault may be of what a change has done already, and the map does not say yet.
TEST_F(MemoryInterceptsTest, PatienceBeginsAnewWhenProtectionsChange) {
  regs().rip = Machine::kDevice;
  EXPECT_TRUE(Fault());
  for (uint32_t i = 1; i < kPatience; ++i) ASSERT_TRUE(intercepts_->OnFault());
  Protect(Machine::kNextPage);
  for (uint32_t i = 0; i < kPatience; ++i) ASSERT_TRUE(intercepts_->OnFault());
  EXPECT_FALSE(intercepts_->OnFault());
}

TEST_F(MemoryInterceptsTest, PatienceBeginsAnewBehindWhatWasTold) {
  regs().rip = Machine::kDevice;
  EXPECT_TRUE(Fault());
  for (uint32_t i = 1; i < kPatience; ++i) ASSERT_TRUE(intercepts_->OnFault());
  // Something of the same instruction is told.
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(Write(At(Machine::kDataPage), {1}), AccessAnswer::kDone);
  Told();
  EXPECT_TRUE(intercepts_->OnFault());
}

TEST_F(MemoryInterceptsTest, ALevelWithoutASynicIsNotWaitedFor) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  Protect(Machine::kDataPage);
  deaf_ = kVtl1;
  EXPECT_TRUE(Fault());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(stats().reads, 0u);
  EXPECT_EQ(stats().again, 1u);
}

TEST_F(MemoryInterceptsTest, OverlaysAreNotForALevelToAllow) {
  machine_.Code({0x48, 0x89, 0x03});
  regs().rbx = Machine::kData;
  ASSERT_OK_AND_ASSIGN(const auto overlay, machine_.views[0]->NewPage());
  ASSERT_TRUE(overlay->Place(Machine::kDataPage, ViewAccess::kRead));
  // Whatever of the RAM beneath.
  Protect(Machine::kDataPage);
  EXPECT_FALSE(Fault());
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(stats().writes + stats().again, 0u);
  // One that may be written explains nothing.
  ASSERT_TRUE(overlay->Place(Machine::kDataPage, ViewAccess::kReadWrite));
  EXPECT_TRUE(Fault());
  EXPECT_EQ(stats().again, 1u);
  overlay->Remove();
  EXPECT_TRUE(Fault());
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage).raw());
}

// --- KVM names the page ---

TEST_F(MemoryInterceptsTest, KvmAndTheDecoderNameOnePage) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData + 0x10;
  Protect(Machine::kDataPage);
  EXPECT_TRUE(Fault(Machine::kDataPage));
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 0x10).raw());
  EXPECT_EQ(told.gva, Machine::kData + 0x10);
  EXPECT_EQ(stats().named, 1u);
  EXPECT_EQ(stats().other_first + stats().unexplained, 0u);
}

TEST_F(MemoryInterceptsTest, OfTwoRefusedAccessesTheOneOnKvmsPageIsTold) {
  machine_.Code({0x48, 0xa5});  // movsq
  regs().rsi = Machine::kData + 0x20;
  regs().rdi = Machine::kData + kPageBytes + 0x40;
  Protect(Machine::kDataPage);
  Protect(Machine::kNextPage);
  EXPECT_TRUE(Fault(Machine::kNextPage));
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.gpa, At(Machine::kNextPage, 0x40).raw());
  EXPECT_EQ(stats().named, 1u);
  EXPECT_EQ(stats().other_first, 1u);
  EXPECT_EQ(stats().unexplained, 0u);
  EXPECT_TRUE(Fault(Machine::kDataPage));
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage, 0x20).raw());
  EXPECT_EQ(stats().other_first, 1u);
}

TEST_F(MemoryInterceptsTest, APageThatIsAllowedByNowSaysNothing) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  EXPECT_TRUE(Fault(Machine::kDataPage));
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().named, 1u);
  EXPECT_EQ(stats().unexplained, 0u);
  EXPECT_EQ(stats().again, 1u);
}

TEST_F(MemoryInterceptsTest, AnInstructionThatDoesNotExplainKvmsPageIsToldByItsWordAfterATime) {
  machine_.Code({0x48, 0x8b, 0x03});
  regs().rbx = Machine::kData;
  Protect(Machine::kNextPage);
  Protect(Machine::kDataPage);  // the decoder finds this one, which is not what KVM met
  for (uint32_t i = 1; i < kUnexplainedTries; ++i) EXPECT_TRUE(Fault(Machine::kNextPage));
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(Fault(Machine::kNextPage));
  EXPECT_FALSE(machine_.Runs());
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kNextPage).raw());
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.access_info, 0);
  EXPECT_EQ(told.header.instruction_length, 3);
  EXPECT_EQ(told.instruction_bytes[1], 0x8b);
  EXPECT_EQ(stats().unexplained, kUnexplainedTries);
  EXPECT_EQ(stats().named, kUnexplainedTries);
  EXPECT_EQ(stats().again, kUnexplainedTries - 1);
  EXPECT_EQ(stats().reads, 1u);
  // And from the beginning.
  EXPECT_TRUE(Fault(Machine::kNextPage));
  EXPECT_TRUE(ToldNothing());
}

TEST_F(MemoryInterceptsTest, UnexplainedFaultsAreCountedAtOneInstruction) {
  Protect(Machine::kNextPage);
  for (uint32_t i = 0; i < kUnexplainedTries; ++i) {
    machine_.Code({0x90, 0x90});
    regs().rip = Machine::kCode + i % 2;
    EXPECT_TRUE(Fault(Machine::kNextPage));
  }
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().unexplained, kUnexplainedTries);
}

TEST_F(MemoryInterceptsTest, AnUnknownInstructionIsToldByKvmsWordAtOnce) {
  machine_.Code({0x0f, 0x04});
  Protect(Machine::kNextPage);
  EXPECT_TRUE(Fault(Machine::kNextPage));
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kNextPage).raw());
  EXPECT_EQ(told.access_info, 0);
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(stats().unexplained, 1u);
  EXPECT_EQ(stats().unknown, 0u);
  EXPECT_EQ(stats().again, 0u);
}

// --- Reads of the emulator's ---

TEST_F(MemoryInterceptsTest, AReadOfADevicesIsNobodysBusiness) {
  machine_.Code({0x8b, 0x03});  // mov eax, [rbx]
  regs().rbx = Machine::kDevice;
  EXPECT_EQ(Read(Machine::kDeviceGpa, 4), AccessAnswer::kUnclaimed);
  Protect(Machine::kDataPage);
  EXPECT_EQ(Read(Machine::kDeviceGpa, 4), AccessAnswer::kUnclaimed);
  EXPECT_EQ(data(), std::vector<uint8_t>(4, 0x77));
  EXPECT_EQ(Write(Machine::kDeviceGpa, {1}), AccessAnswer::kUnclaimed);
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().emulated + stats().again, 0u);
}

// Invariant 1: the device would have been asked first, and what it gave lost.
TEST_F(MemoryInterceptsTest, ADeviceIsNotAskedForWhatMayNotBeStored) {
  machine_.Code({0xa5});  // movsd
  regs().rsi = Machine::kDevice;
  regs().rdi = Machine::kData + 0x30;
  machine_.Fill(At(Machine::kDataPage, 0x30), 0x5a, 4);
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(Read(Machine::kDeviceGpa, 4), AccessAnswer::kNotMade);
  // KVM, if it stores, stores what is there.
  EXPECT_EQ(data(), std::vector<uint8_t>(4, 0x5a));
  EXPECT_FALSE(machine_.Runs());
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 0x30).raw());
  EXPECT_EQ(told.header.instruction_length, 1);
  EXPECT_EQ(stats().emulated, 1u);
  EXPECT_EQ(stats().writes, 1u);
  EXPECT_EQ(stats().held, 0u);
}

TEST_F(MemoryInterceptsTest, ARefusedReadOfTheEmulatorsIsTold) {
  machine_.Code({0xa5});  // movsd
  regs().rsi = Machine::kData + 0x30;
  regs().rdi = Machine::kData + kPageBytes;
  machine_.Fill(At(Machine::kNextPage), 0xc3, 4);
  Protect(Machine::kDataPage);
  EXPECT_EQ(Read(At(Machine::kDataPage, 0x30), 4), AccessAnswer::kNotMade);
  EXPECT_EQ(data(), std::vector<uint8_t>(4, 0xc3));
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.gva, Machine::kData + 0x30);
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 0x30).raw());
  EXPECT_EQ(stats().emulated, 1u);
  EXPECT_EQ(stats().reads, 1u);
}

TEST_F(MemoryInterceptsTest, AReadByAnUnknownInstructionIsToldByWhatTheEmulatorAsks) {
  machine_.Code({0x0f, 0x04});
  Protect(Machine::kDataPage);
  EXPECT_EQ(Read(At(Machine::kDataPage, 0x38), 8), AccessAnswer::kNotMade);
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 0x38).raw());
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.access_info, 0);
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(data(), std::vector<uint8_t>(8, 0));  // it stores nowhere that is known
  EXPECT_EQ(stats().emulated, 1u);
}

// It was no read of the instruction's then, but a table's, which the processor takes as a write.
TEST_F(MemoryInterceptsTest, WhoRefusesWritesAloneIsToldOfAReadThatIsNotKnown) {
  machine_.Code({0x0f, 0x04});
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(Read(At(Machine::kDataPage, 0x38), 8), AccessAnswer::kNotMade);
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage, 0x38).raw());
  EXPECT_EQ(stats().reads, 1u);
}

TEST_F(MemoryInterceptsTest, AReadThatIsAllowedByNowIsMadeAgainAndAnsweredInTheEnd) {
  regs().rip = Machine::kDevice;
  EXPECT_EQ(Read(At(Machine::kDataPage), 4), AccessAnswer::kNotMade);
  EXPECT_EQ(data(), std::vector<uint8_t>(4, 0));
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(stats().again, 1u);
  EXPECT_EQ(stats().emulated, 0u);
  uint32_t times = 1;
  while (times <= kPatience && intercepts_->OnEmulatedAccess(At(Machine::kDataPage), data_, false) == AccessAnswer::kNotMade) ++times;
  EXPECT_EQ(times, kPatience);
  EXPECT_EQ(data(), std::vector<uint8_t>(4, 0xff));
  EXPECT_TRUE(ToldNothing());
}

// --- Stores of the emulator's ---

TEST_F(MemoryInterceptsTest, AStoreThatIsAllowedByNowIsMadeAtOnce) {
  EXPECT_EQ(Write(At(Machine::kDataPage, 4), {1, 2, 3, 4}), AccessAnswer::kDone);
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage)), 0x0403'0201'0000'0000u);
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(stats().emulated, 1u);
  EXPECT_EQ(stats().held, 1u);
  // Once: what comes later is not overwritten.
  machine_.Fill(At(Machine::kDataPage), 0xee, 8);
  intercepts_->Resume();
  EXPECT_EQ(Byte(At(Machine::kDataPage, 4)), 0xee);
}

TEST_F(MemoryInterceptsTest, ARefusedStoreIsHeldToldAndMadeOnce) {
  regs().rip = Machine::kCode + 7;  // behind it
  machine_.Code({0x90});
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(Write(At(Machine::kDataPage, 8), {0xaa, 0xbb}), AccessAnswer::kDone);
  EXPECT_FALSE(machine_.Runs());
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage, 8)), 0u);
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.header.rip, Machine::kCode + 7);
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(told.instruction_byte_count, 0);
  EXPECT_EQ(told.access_info, 0);
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 8).raw());

  // Still refused: told again, each time that it is to run.
  machine_.vtl0.on_prepare = [this] { intercepts_->Resume(); };
  EXPECT_TRUE(machine_.VisitVtl1());
  EXPECT_FALSE(machine_.Runs());
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage, 8).raw());
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage, 8)), 0u);

  Protect(Machine::kDataPage, PageRights());
  EXPECT_TRUE(machine_.VisitVtl1());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage, 8)), 0xbbaau);
  machine_.Fill(At(Machine::kDataPage, 8), 0, 2);
  intercepts_->Resume();
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage, 8)), 0u);
  EXPECT_EQ(stats().writes, 2u);
  EXPECT_EQ(stats().emulated, 1u);
  EXPECT_EQ(stats().held, 1u);
}

TEST_F(MemoryInterceptsTest, AHeldStoreIsGivenUp) {
  Protect(Machine::kDataPage);
  EXPECT_EQ(Write(At(Machine::kDataPage), {1}), AccessAnswer::kDone);
  EXPECT_EQ(Write(At(Machine::kDataPage, 1), {2}), AccessAnswer::kDone);
  Told();
  intercepts_->Forget();
  Protect(Machine::kDataPage, PageRights());
  intercepts_->Resume();
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage)), 0u);
  EXPECT_TRUE(ToldNothing());
  // The next is held as the first was.
  Protect(Machine::kDataPage);
  EXPECT_EQ(Write(At(Machine::kDataPage, 2), {3}), AccessAnswer::kDone);
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage, 2).raw());
}

// One instruction's stores are pieces: the first that is refused is told, the others wait behind it in their order.
TEST_F(MemoryInterceptsTest, PiecesBehindAHeldOneAreHeldWithoutBeingTold) {
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(Write(At(Machine::kDataPage, kPageBytes - 8), {1, 1, 1, 1, 1, 1, 1, 1}), AccessAnswer::kDone);
  EXPECT_EQ(Write(At(Machine::kNextPage), {2, 2}), AccessAnswer::kDone);
  EXPECT_EQ(Write(At(Machine::kNextPage, 1), {3}), AccessAnswer::kDone);
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage, kPageBytes - 8).raw());
  EXPECT_EQ(Byte(At(Machine::kNextPage)), 0);  // although it is allowed

  // The first is let, the second is not by now.
  Protect(Machine::kDataPage, PageRights());
  Protect(Machine::kNextPage, Machine::kReadExecute);
  intercepts_->Resume();
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage, kPageBytes - 8)), 0x0101'0101'0101'0101u);
  EXPECT_EQ(Told().gpa, At(Machine::kNextPage).raw());
  EXPECT_EQ(Byte(At(Machine::kNextPage)), 0);

  machine_.Fill(At(Machine::kDataPage, kPageBytes - 8), 0, 8);
  Protect(Machine::kNextPage, PageRights());
  intercepts_->Resume();
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(machine_.Word(At(Machine::kNextPage)), 0x0302u);
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage, kPageBytes - 8)), 0u);  // the first was over
  EXPECT_EQ(stats().held, 3u);
  EXPECT_EQ(stats().emulated, 3u);
  EXPECT_EQ(stats().writes, 2u);
}

TEST_F(MemoryInterceptsTest, NoMoreIsHeldThanOneInstructionStores) {
  Protect(Machine::kDataPage, Machine::kReadExecute);
  for (uint64_t i = 0; i < kMostHeld + 3; ++i) EXPECT_EQ(Write(At(Machine::kDataPage, i), {0x11}), AccessAnswer::kDone);
  EXPECT_EQ(machine_.Take(kVtl1).size(), 1u);
  EXPECT_EQ(stats().held, kMostHeld);
  EXPECT_EQ(stats().emulated, kMostHeld + 3);
  Protect(Machine::kDataPage, PageRights());
  intercepts_->Resume();
  for (uint64_t i = 0; i < kMostHeld; ++i) ASSERT_EQ(Byte(At(Machine::kDataPage, i)), 0x11) << i;
  EXPECT_EQ(Byte(At(Machine::kDataPage, kMostHeld)), 0);
}

TEST_F(MemoryInterceptsTest, WhatWasMadeLeavesRoom) {
  Protect(Machine::kDataPage, Machine::kReadExecute);
  Protect(Machine::kNextPage, Machine::kReadExecute);
  EXPECT_EQ(Write(At(Machine::kDataPage), {0x11}), AccessAnswer::kDone);
  for (uint64_t i = 1; i < kMostHeld; ++i) EXPECT_EQ(Write(At(Machine::kNextPage, i), {0x22}), AccessAnswer::kDone);
  Protect(Machine::kDataPage, PageRights());
  intercepts_->Resume();
  EXPECT_EQ(Byte(At(Machine::kDataPage)), 0x11);
  EXPECT_EQ(Write(At(Machine::kNextPage), {0x33}), AccessAnswer::kDone);
  EXPECT_EQ(Write(At(Machine::kNextPage), {0x44}), AccessAnswer::kDone);
  EXPECT_EQ(stats().held, kMostHeld + 1);
  Protect(Machine::kNextPage, PageRights());
  intercepts_->Resume();
  EXPECT_EQ(Byte(At(Machine::kNextPage)), 0x33);
}

TEST_F(MemoryInterceptsTest, AStoreThatIsLargerThanAnyOfKvmsIsNotHeld) {
  EXPECT_EQ(Write(At(Machine::kDataPage), std::vector<uint8_t>(9, 1)), AccessAnswer::kDone);
  EXPECT_EQ(stats().held, 0u);
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage)), 0u);
}

// It begins in RAM and ends outside: it can never be made, and must not be in the way of what can.
TEST_F(MemoryInterceptsTest, AStoreOverTheEndOfRamIsDropped) {
  const Gpa last = Gpa(Machine::kBytes - 4);
  Protect(last.page(), Machine::kReadExecute);
  EXPECT_EQ(Write(last, {1, 2, 3, 4, 5, 6, 7, 8}), AccessAnswer::kDone);
  EXPECT_EQ(Write(At(Machine::kDataPage), {9}), AccessAnswer::kDone);
  EXPECT_EQ(Told().gpa, last.raw());
  Protect(last.page(), PageRights());
  intercepts_->Resume();
  EXPECT_EQ(Byte(last), 0);
  EXPECT_EQ(Byte(At(Machine::kDataPage)), 9);
  EXPECT_TRUE(ToldNothing());
}

TEST_F(MemoryInterceptsTest, AStoreThatNobodyIsToldOfWaits) {
  Protect(Machine::kDataPage, Machine::kReadExecute);
  deaf_ = kVtl1;
  EXPECT_EQ(Write(At(Machine::kDataPage), {7}), AccessAnswer::kDone);
  EXPECT_EQ(Byte(At(Machine::kDataPage)), 0);
  Protect(Machine::kDataPage, PageRights());
  intercepts_->Resume();
  EXPECT_EQ(Byte(At(Machine::kDataPage)), 7);
}

TEST_F(MemoryInterceptsTest, AStoreIntoAnOverlayIsNeitherMadeNorTold) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, machine_.views[0]->NewPage());
  ASSERT_TRUE(overlay->Place(Machine::kDataPage, ViewAccess::kRead));
  EXPECT_EQ(Write(At(Machine::kDataPage), {1}), AccessAnswer::kDone);
  overlay->Remove();
  intercepts_->Resume();
  EXPECT_EQ(machine_.Word(At(Machine::kDataPage)), 0u);
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().emulated + stats().held, 0u);
}

// --- INS ---

TEST_F(MemoryInterceptsTest, OfPortsInsAloneStores) {
  machine_.Code({0x6c});  // insb
  regs().rdi = Machine::kData;
  EXPECT_EQ(ReadPort(1, 1), AccessAnswer::kUnclaimed);  // nothing is protected at all
  Protect(Machine::kNextPage);
  EXPECT_EQ(ReadPort(1, 1), AccessAnswer::kUnclaimed);
  Protect(Machine::kDataPage);
  for (const uint8_t other : {0xec, 0x6e, 0x90}) {  // in al, dx; outsb; nop
    machine_.Code({other});
    EXPECT_EQ(ReadPort(1, 1), AccessAnswer::kUnclaimed) << int{other};
  }
  EXPECT_EQ(data(), std::vector<uint8_t>(1, 0x77));
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(stats().emulated, 0u);
}

TEST_F(MemoryInterceptsTest, APortIsNotReadForWhatMayNotBeStored) {
  machine_.Code({0x6d});  // insd
  regs().rdi = Machine::kData + 0x10;
  machine_.Fill(At(Machine::kDataPage, 0x10), 0x3c, 4);
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(ReadPort(4, 1), AccessAnswer::kNotMade);
  EXPECT_EQ(data(), std::vector<uint8_t>(4, 0x3c));
  EXPECT_FALSE(machine_.Runs());
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.gpa, At(Machine::kDataPage, 0x10).raw());
  EXPECT_EQ(told.gva, Machine::kData + 0x10);
  EXPECT_EQ(told.header.instruction_length, 1);
  EXPECT_EQ(stats().emulated, 1u);
}

TEST_F(MemoryInterceptsTest, OfARepeatedInsTheLastIsLookedAtToo) {
  machine_.Code({0xf3, 0x6d});  // rep insd
  regs().rcx = 4;
  regs().rdi = Machine::kData + kPageBytes - 12;
  machine_.Fill(At(Machine::kDataPage, kPageBytes - 12), 1, 12);
  machine_.Fill(At(Machine::kNextPage), 2, 4);
  Protect(Machine::kNextPage, Machine::kReadExecute);
  EXPECT_EQ(ReadPort(4, 3), AccessAnswer::kUnclaimed);  // that far it is allowed
  EXPECT_EQ(ReadPort(4, 4), AccessAnswer::kNotMade);
  std::vector<uint8_t> there(12, 1);
  there.insert(there.end(), 4, 2);
  EXPECT_EQ(data(), there);
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kNextPage).raw());
  EXPECT_EQ(told.gprs[7], Machine::kData + kPageBytes - 12);  // where it stands
}

TEST_F(MemoryInterceptsTest, ARepeatedInsGoesDownwardsWhereTheFlagSaysSo) {
  machine_.Code({0xf3, 0x6c});  // rep insb
  regs().rcx = 2;
  regs().rdi = Machine::kData + kPageBytes;
  regs().rflags = 2 | 1 << 10;
  machine_.Fill(At(Machine::kDataPage, kPageBytes - 1), 1, 1);
  machine_.Fill(At(Machine::kNextPage), 2, 2);
  Protect(Machine::kDataPage, Machine::kReadExecute);
  EXPECT_EQ(ReadPort(1, 2), AccessAnswer::kNotMade);
  EXPECT_EQ(data(), (std::vector<uint8_t>{2, 1}));
  EXPECT_EQ(Told().gpa, At(Machine::kDataPage, kPageBytes - 1).raw());
  regs().rflags = 2;
  EXPECT_EQ(ReadPort(1, 2), AccessAnswer::kUnclaimed);
}

// The page of ours is what the level sees, whatever it may do with the RAM beneath: there is nothing to allow.
TEST_F(MemoryInterceptsTest, AnOverlayThatTheEmulatorIsAboutToStoreIntoIsNotTold) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, machine_.views[0]->NewPage());
  ASSERT_TRUE(overlay->Place(Machine::kDataPage, ViewAccess::kRead));
  Protect(Machine::kDataPage, Machine::kReadExecute);
  machine_.Code({0xa5});  // movsd
  regs().rsi = Machine::kDevice;
  regs().rdi = Machine::kData;
  EXPECT_EQ(Read(Machine::kDeviceGpa, 4), AccessAnswer::kUnclaimed);
  machine_.Code({0x6d});  // insd
  EXPECT_EQ(ReadPort(4, 1), AccessAnswer::kUnclaimed);
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(stats().emulated, 0u);
}

// What the emulator has met is RAM all the same.
TEST_F(MemoryInterceptsTest, BehindAnOverlayARefusedReadIsToldByWhatTheEmulatorAsks) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, machine_.views[0]->NewPage());
  ASSERT_TRUE(overlay->Place(Machine::kDataPage, ViewAccess::kRead));
  Protect(Machine::kNextPage);
  machine_.Code({0xc8, 0x00, 0x00, 0x02});  // enter 0, 2: stores, then reads a frame pointer
  regs().rsp = Machine::kData + 0x800;
  regs().rbp = Machine::kData + kPageBytes + 0x108;
  EXPECT_EQ(Read(At(Machine::kNextPage, 0x100), 8), AccessAnswer::kNotMade);
  const HvMemoryIntercept told = Told();
  EXPECT_EQ(told.gpa, At(Machine::kNextPage, 0x100).raw());
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.access_info, 0);
}

}  // namespace
}  // namespace vmm
