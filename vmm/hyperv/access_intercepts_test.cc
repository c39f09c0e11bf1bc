#include "vmm/hyperv/access_intercepts.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/vsm/intercept_message_layout.h"
#include "devices/hyperv/vsm/io_port_intercepts.h"
#include "devices/hyperv/vsm/msr_intercepts.h"
#include "devices/hyperv/vsm/vsm_layout.h"
#include "devices/io_device.h"
#include "kvm/uapi.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "vmm/hyperv/stopped_level_for_test.h"

namespace vmm {
namespace {

using Machine = StoppedLevelForTest;
using Bytes = std::vector<uint8_t>;

constexpr Vtl kVtl2{2};
constexpr uint32_t kEfer = 0xc000'0080, kLstar = 0xc000'0082, kTscAux = 0xc000'0103;
constexpr uint16_t kPort = 0x3f8;

Bytes ToBytes(std::span<const std::byte> from) {
  Bytes bytes;
  for (const std::byte byte : from) bytes.push_back(static_cast<uint8_t>(byte));
  return bytes;
}

// Writes down what it is given.
class FakePorts final : public IoDevice {
 public:
  void Read(uint64_t, std::span<std::byte>) noexcept override { ++reads; }
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override { writes.emplace_back(offset, ToBytes(data)); }
  int reads = 0;
  std::vector<std::pair<uint64_t, Bytes>> writes;
};

class AccessInterceptsTest : public testing::Test {
 protected:
  AccessInterceptsTest() {
    EXPECT_TRUE(machine_.levels.ports.Add(kPort, 8, "ports", ports_).ok());
    machine_.regs().rax = 0x1122'3344'5566'7788;
    machine_.regs().rcx = 3;
    machine_.regs().rdx = 0xd0d0;
    machine_.regs().rsi = Machine::kData;
    machine_.regs().rdi = Machine::kData + kPageBytes;
  }
  void Ask(CrEvent event, Vtl owner = kVtl1) { machine_.scheduler.vsm().cr_intercepts(owner).control |= CrEventBit(event); }
  bool Msr(uint32_t msr, bool write) {
    machine_.Code({0x0f, static_cast<uint8_t>(write ? 0x30 : 0x32)});
    machine_.Exit();
    return intercepts_.OnMsr(msr, write);
  }
  AccessAnswer In(uint16_t port, uint8_t bytes, uint32_t count = 1) {
    machine_.Exit();
    data_.assign(size_t{bytes} * count, std::byte{0x77});
    return intercepts_.OnPort({.port = port, .bytes = bytes, .count = count, .write = false}, data_);
  }
  AccessAnswer Out(uint16_t port, const Bytes& value) {
    machine_.Exit();
    data_.clear();
    for (const uint8_t byte : value) data_.push_back(std::byte{byte});
    return intercepts_.OnPort({.port = port, .bytes = static_cast<uint8_t>(value.size()), .count = 1, .write = true}, data_);
  }

  // The one message that waits at `level`, and none elsewhere.
  template <typename Payload>
  Payload Told(HvMessageType type, Vtl level) {
    Payload payload{};
    const std::vector<HvMessage> messages = machine_.Take(level);
    EXPECT_EQ(messages.size(), 1u);
    EXPECT_TRUE(machine_.Take(level == kVtl1 ? kVtl2 : kVtl1).empty());
    if (messages.empty()) return payload;
    EXPECT_EQ(messages[0].header.type, type);
    EXPECT_EQ(messages[0].header.payload_size, sizeof(payload));
    std::memcpy(&payload, messages[0].payload, sizeof(payload));
    return payload;
  }
  HvMsrIntercept ToldOfMsr(Vtl level = kVtl1) { return Told<HvMsrIntercept>(HvMessageType::kX64MsrIntercept, level); }
  HvIoPortIntercept ToldOfPort(Vtl level = kVtl1) { return Told<HvIoPortIntercept>(HvMessageType::kX64IoPortIntercept, level); }
  bool ToldNothing() { return machine_.Take(kVtl1).empty() && machine_.Take(kVtl2).empty(); }

  Machine machine_;
  FakePorts ports_;
  std::optional<Vtl> deaf_;  // has no SynIC
  const std::unique_ptr<IoPortIntercepts> asked_ = std::make_unique<IoPortIntercepts>();
  AccessIntercepts intercepts_{Machine::kVp, kVtl0,
                               {.processor = *machine_.levels.processor,
                                .scheduler = machine_.scheduler,
                                .ports = *asked_,
                                .memory = *machine_.memory,
                                .protections = *machine_.protections,
                                .view = *machine_.views[0],
                                .synic_of = [this](Vtl of) { return of == deaf_ ? nullptr : machine_.FindSynic(of); }}};
  std::vector<std::byte> data_;
};

// --- MSRs ---

TEST_F(AccessInterceptsTest, AWriteOfAnMsrIsToldWithItsValue) {
  Ask(CrEvent::kLstarWrite);
  machine_.regs().rflags = 0x246;
  machine_.sregs().cr8 = 2;
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(Msr(kLstar, /*write=*/true));
  EXPECT_FALSE(machine_.Runs());
  const HvMsrIntercept told = ToldOfMsr();
  EXPECT_EQ(told.header.vp_index, Machine::kVp.raw());
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.header.instruction_length, 2 | 2 << 4);
  EXPECT_EQ(told.header.execution_state, kHvExecutionProtected | kHvExecutionLongMode);
  EXPECT_EQ(told.header.rip, Machine::kCode);
  EXPECT_EQ(told.header.rflags, 0x246u);
  EXPECT_EQ(told.header.cs.selector, 0x10);
  EXPECT_EQ(told.msr, kLstar);
  EXPECT_EQ(told.rax, 0x1122'3344'5566'7788u);
  EXPECT_EQ(told.rdx, 0xd0d0u);
  EXPECT_EQ(intercepts_.stats().msrs, 1u);
  EXPECT_EQ(intercepts_.stats().ports, 0u);
}

TEST_F(AccessInterceptsTest, AReadOfAnMsrIsAnotherMatterThanAWrite) {
  Ask(CrEvent::kEferRead);
  EXPECT_FALSE(Msr(kEfer, /*write=*/true));
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(Msr(kEfer, /*write=*/false));
  const HvMsrIntercept told = ToldOfMsr();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.msr, kEfer);
  EXPECT_EQ(intercepts_.stats().msrs, 1u);
}

TEST_F(AccessInterceptsTest, WhatNobodyAskedForIsNotTold) {
  EXPECT_FALSE(Msr(kLstar, true));
  Ask(CrEvent::kLstarWrite);
  EXPECT_FALSE(Msr(kLstar, false));
  EXPECT_FALSE(Msr(kEfer, true));
  EXPECT_FALSE(Msr(kTscAux, false));  // no bit is about it
  EXPECT_FALSE(Msr(0x10, true));
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(intercepts_.stats().msrs, 0u);
}

TEST_F(AccessInterceptsTest, TheLowestLevelThatAskedIsTold) {
  Ask(CrEvent::kStarWrite, kVtl2);
  EXPECT_TRUE(Msr(0xc000'0081, true));
  ToldOfMsr(kVtl2);
  Ask(CrEvent::kStarWrite, kVtl1);
  EXPECT_TRUE(Msr(0xc000'0081, true));
  ToldOfMsr(kVtl1);
  asked_->Install(kVtl2, kPort, true, true);
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kNotMade);
  ToldOfPort(kVtl2);
  asked_->Install(kVtl1, kPort, true, true);
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kNotMade);
  ToldOfPort(kVtl1);
}

TEST_F(AccessInterceptsTest, ALevelWithoutASynicIsNotAsked) {
  Ask(CrEvent::kLstarWrite);
  asked_->Install(kVtl1, kPort, true, true);
  deaf_ = kVtl1;
  EXPECT_FALSE(Msr(kLstar, true));
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kUnclaimed);
  EXPECT_EQ(Out(kPort, {0x88}), AccessAnswer::kUnclaimed);
  EXPECT_TRUE(machine_.Runs());
}

// Invariant 2.
TEST_F(AccessInterceptsTest, MadeAgainItIsToldAgain) {
  Ask(CrEvent::kLstarWrite);
  EXPECT_TRUE(Msr(kLstar, true));
  EXPECT_FALSE(machine_.Runs());
  EXPECT_TRUE(machine_.VisitVtl1());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(Msr(kLstar, true));
  EXPECT_FALSE(machine_.Runs());
  EXPECT_EQ(machine_.Take(kVtl1).size(), 2u);
  EXPECT_EQ(intercepts_.stats().msrs, 2u);
}

// --- Ports ---

TEST_F(AccessInterceptsTest, AnInIsToldAndNotMade) {
  asked_->Install(kVtl1, kPort, /*reads=*/true, /*writes=*/false);
  machine_.Code({0xec, 0x90});  // in al, dx
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kNotMade);
  EXPECT_FALSE(machine_.Runs());
  EXPECT_EQ(ports_.reads, 0);
  EXPECT_EQ(ToBytes(data_), Bytes{0x77});
  const HvIoPortIntercept told = ToldOfPort();
  EXPECT_EQ(told.header.vp_index, Machine::kVp.raw());
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.header.instruction_length, 1);
  EXPECT_EQ(told.header.rip, Machine::kCode);
  EXPECT_EQ(told.port, kPort);
  EXPECT_EQ(told.access_info, 1);
  EXPECT_EQ(told.instruction_byte_count, 16);
  EXPECT_EQ(told.instruction_bytes[0], 0xec);
  EXPECT_EQ(told.instruction_bytes[1], 0x90);
  EXPECT_EQ(told.rax, 0x1122'3344'5566'7788u);
  EXPECT_EQ(told.rcx, 3u);
  EXPECT_EQ(told.rsi, Machine::kData);
  EXPECT_EQ(told.rdi, Machine::kData + kPageBytes);
  EXPECT_EQ(told.ds.selector, 0x18);
  EXPECT_EQ(told.es.selector, 0x18);
  EXPECT_EQ(intercepts_.stats().ports, 1u);
  EXPECT_EQ(intercepts_.stats().msrs, 0u);
}

TEST_F(AccessInterceptsTest, AnOutIsToldAndNotMade) {
  asked_->Install(kVtl1, kPort, /*reads=*/false, /*writes=*/true);
  machine_.Code({0x66, 0xef});  // out dx, ax
  EXPECT_EQ(Out(kPort, {0x88, 0x77}), AccessAnswer::kNotMade);
  EXPECT_FALSE(machine_.Runs());
  const HvIoPortIntercept told = ToldOfPort();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.header.instruction_length, 2);
  EXPECT_EQ(told.access_info, 2);
  EXPECT_EQ(told.instruction_bytes[1], 0xef);
  // It is made again as an instruction, or not: nothing is held.
  asked_->Install(kVtl1, kPort, false, false);
  intercepts_.Resume();
  EXPECT_TRUE(ports_.writes.empty());
}

TEST_F(AccessInterceptsTest, ReadsAndWritesOfAPortAreAskedForApart) {
  asked_->Install(kVtl1, kPort, /*reads=*/true, /*writes=*/false);
  machine_.Code({0xee});
  EXPECT_EQ(Out(kPort, {0x88}), AccessAnswer::kUnclaimed);
  EXPECT_EQ(In(kPort + 1, 1), AccessAnswer::kUnclaimed);
  asked_->Install(kVtl1, kPort, /*reads=*/false, /*writes=*/true);
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kUnclaimed);
  EXPECT_EQ(ToBytes(data_), Bytes{0x77});
  EXPECT_TRUE(ToldNothing());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_EQ(intercepts_.stats().ports, 0u);
}

TEST_F(AccessInterceptsTest, AnyPortOfAWideAccessCounts) {
  asked_->Install(kVtl1, kPort + 3, true, true);
  machine_.Code({0x66, 0xed});  // in ax, dx
  EXPECT_EQ(In(kPort, 2), AccessAnswer::kUnclaimed);
  machine_.Code({0xed});  // in eax, dx
  EXPECT_EQ(In(kPort, 4), AccessAnswer::kNotMade);
  const HvIoPortIntercept in = ToldOfPort();
  EXPECT_EQ(in.port, kPort);
  EXPECT_EQ(in.access_info, 4);
  machine_.Code({0xef});  // out dx, eax
  EXPECT_EQ(Out(kPort, {0x88, 0x77, 0x66, 0x55}), AccessAnswer::kNotMade);
  EXPECT_EQ(ToldOfPort().access_info, 4);
}

TEST_F(AccessInterceptsTest, InsIsAnsweredWithWhatIsThere) {
  asked_->Install(kVtl1, kPort, true, true);
  machine_.Code({0x66, 0xf3, 0x6d});  // rep insw
  machine_.Fill(Gpa(Machine::kNextPage), 0x21, 2);
  machine_.Fill(Gpa(Machine::kNextPage) + 2, 0x43, 2);
  EXPECT_EQ(In(kPort, 2, 2), AccessAnswer::kNotMade);
  EXPECT_EQ(ToBytes(data_), (Bytes{0x21, 0x21, 0x43, 0x43}));
  const HvIoPortIntercept told = ToldOfPort();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kRead);
  EXPECT_EQ(told.header.instruction_length, 3);
  EXPECT_EQ(told.access_info, 2 | kHvIoAccessString | kHvIoAccessRep);
  EXPECT_EQ(told.rdi, Machine::kData + kPageBytes);
  // Downwards, from the second on.
  machine_.regs().rflags = 2 | 1 << 10;
  machine_.regs().rdi += 2;
  EXPECT_EQ(In(kPort, 2, 2), AccessAnswer::kNotMade);
  EXPECT_EQ(ToBytes(data_), (Bytes{0x43, 0x43, 0x21, 0x21}));
  ToldOfPort();
  machine_.Code({0x6c});  // insb
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kNotMade);
  EXPECT_EQ(ToldOfPort().access_info, 1 | kHvIoAccessString);
}

// What is at RIP need not be what made the access: another processor writes code.
TEST_F(AccessInterceptsTest, AnotherInstructionAtRipIsNotTakenForTheAccess) {
  asked_->Install(kVtl1, kPort, true, true);
  for (const uint8_t other : {0x90, 0xee, 0x6e}) {  // nop; out dx, al; outsb
    machine_.Code({other});
    EXPECT_EQ(In(kPort, 1), AccessAnswer::kNotMade);
    const HvIoPortIntercept told = ToldOfPort();
    EXPECT_EQ(told.access_info, 1) << int{other};
    EXPECT_EQ(told.header.instruction_length, 0) << int{other};
    EXPECT_EQ(told.instruction_byte_count, 0) << int{other};
    EXPECT_EQ(ToBytes(data_), Bytes{0x77});
  }
}

// --- OUTS, whose RIP is behind it ---

TEST_F(AccessInterceptsTest, AnOutsIsHeldToldAgainAndMadeOnce) {
  asked_->Install(kVtl1, kPort + 2, false, true);
  machine_.Code({0x6f, 0x90});  // outsd
  machine_.regs().rip = Machine::kCode + 1;
  EXPECT_EQ(Out(kPort + 2, {1, 2, 3, 4}), AccessAnswer::kDone);
  EXPECT_FALSE(machine_.Runs());
  const HvIoPortIntercept told = ToldOfPort();
  EXPECT_EQ(told.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(told.header.rip, Machine::kCode + 1);
  EXPECT_EQ(told.instruction_byte_count, 0);
  EXPECT_EQ(told.port, kPort + 2);
  EXPECT_EQ(told.access_info, 4 | kHvIoAccessString);

  machine_.vtl0.on_prepare = [this] { intercepts_.Resume(); };
  EXPECT_TRUE(machine_.VisitVtl1());
  EXPECT_FALSE(machine_.Runs());
  const HvIoPortIntercept again = ToldOfPort();
  EXPECT_EQ(again.header.access, HvInterceptAccess::kWrite);
  EXPECT_EQ(again.port, kPort + 2);
  EXPECT_EQ(again.access_info, 4 | kHvIoAccessString);
  EXPECT_TRUE(ports_.writes.empty());
  EXPECT_EQ(intercepts_.stats().ports, 2u);

  asked_->Install(kVtl1, kPort + 2, false, false);
  EXPECT_TRUE(machine_.VisitVtl1());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(machine_.Runs());
  EXPECT_TRUE(ToldNothing());
  EXPECT_EQ(ports_.writes, (std::vector<std::pair<uint64_t, Bytes>>{{2, {1, 2, 3, 4}}}));
  EXPECT_EQ(intercepts_.stats().ports, 2u);
}

TEST_F(AccessInterceptsTest, AHeldOutsHasItsOwnSize) {
  for (const Bytes& value : {Bytes{9}, Bytes{8, 7}}) {
    asked_->Install(kVtl1, kPort, false, true);
    EXPECT_EQ(Out(kPort, value), AccessAnswer::kDone);
    EXPECT_EQ(ToldOfPort().access_info, value.size() | kHvIoAccessString);
    asked_->Install(kVtl1, kPort, false, false);
    intercepts_.Resume();
  }
  EXPECT_EQ(ports_.writes, (std::vector<std::pair<uint64_t, Bytes>>{{0, {9}}, {0, {8, 7}}}));
}

TEST_F(AccessInterceptsTest, AHeldOutsIsGivenUp) {
  asked_->Install(kVtl1, kPort, false, true);
  EXPECT_EQ(Out(kPort, {9}), AccessAnswer::kDone);
  ToldOfPort();
  intercepts_.Forget();
  intercepts_.Resume();
  EXPECT_TRUE(ToldNothing());
  asked_->Install(kVtl1, kPort, false, false);
  intercepts_.Resume();
  EXPECT_TRUE(ports_.writes.empty());
}

// RIP is still the instruction's, the registers are the next iteration's.
TEST_F(AccessInterceptsTest, InTheMiddleOfARepeatOutsIsHeldToo) {
  asked_->Install(kVtl1, kPort, false, true);
  machine_.Code({0xf3, 0x6e});  // rep outsb
  EXPECT_EQ(Out(kPort, {0x88}), AccessAnswer::kDone);  // the same byte as AL
  const HvIoPortIntercept told = ToldOfPort();
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(told.access_info, 1 | kHvIoAccessString);
}

// Which of the two it was is told by the value alone.
TEST_F(AccessInterceptsTest, AnOutBehindOutsIsTakenForItWhereItWouldWriteTheSame) {
  asked_->Install(kVtl1, kPort, false, true);
  machine_.Code({0xee});  // out dx, al
  EXPECT_EQ(Out(kPort, {0x87}), AccessAnswer::kDone);
  EXPECT_EQ(ToldOfPort().access_info, 1 | kHvIoAccessString);
  intercepts_.Forget();
  EXPECT_EQ(Out(kPort, {0x88}), AccessAnswer::kNotMade);
  EXPECT_EQ(ToldOfPort().access_info, 1);
}

// The level may not be able to read its own code any more.
TEST_F(AccessInterceptsTest, AnInstructionThatCannotBeFetchedIsToldWithoutBytes) {
  asked_->Install(kVtl1, kPort, true, false);
  Ask(CrEvent::kLstarWrite);
  machine_.Code({0xec});
  machine_.Protect(kVtl1, Machine::kCodePage, PageRights::None());
  EXPECT_EQ(In(kPort, 1), AccessAnswer::kNotMade);
  const HvIoPortIntercept told = ToldOfPort();
  EXPECT_EQ(told.header.instruction_length, 0);
  EXPECT_EQ(told.instruction_byte_count, 0);
  EXPECT_TRUE(Msr(kLstar, true));
  EXPECT_EQ(ToldOfMsr().header.instruction_length, 0);
}

}  // namespace
}  // namespace vmm
