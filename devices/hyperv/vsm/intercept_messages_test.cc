#include "devices/hyperv/vsm/intercept_messages.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/vsm/intercept_message_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

// Read back by offsets, as a receiver that has its own structures does.
template <typename T>
T At(const HvMessage& message, size_t offset) {
  T value;
  std::memcpy(&value, message.payload + offset, sizeof(value));
  return value;
}

constexpr HvSegmentRegister kCs{.base = 0, .limit = 0xffff'ffff, .selector = 0x10, .attributes = 0xa09b};
constexpr HvSegmentRegister kDs{.base = 1, .limit = 2, .selector = 3, .attributes = 0x93};
constexpr HvSegmentRegister kEs{.base = 4, .limit = 5, .selector = 6, .attributes = 0xf3};
constexpr HvSegmentRegister kSs{.base = 7, .limit = 8, .selector = 9, .attributes = 0x97};
constexpr std::array<uint8_t, 20> kCode = {0x48, 0x8b, 0x07, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};

InterceptedState LongModeState() {
  InterceptedState state{.vp = VpIndex(3),
                         .vtl = kVtl0,
                         .cpl = 3,
                         .instruction_length = 3,
                         .cr0 = 0x8005'0033,
                         .efer = 0xd01,
                         .rip = 0x40'1000,
                         .rflags = 0x246,
                         .cs = kCs,
                         .ds = kDs,
                         .es = kEs,
                         .ss = kSs};
  for (size_t i = 0; i < state.gprs.size(); ++i) state.gprs[i] = 0x1000 + i;
  return state;
}

TEST(InterceptHeaderTest, IsTheStateOfTheLevelThatWasStopped) {
  const HvMessage message = MakeMsrIntercept(LongModeState(), HvInterceptAccess::kWrite, 0xc000'0082);
  EXPECT_EQ(At<uint32_t>(message, 0), 3u);
  EXPECT_EQ(At<uint8_t>(message, 4), 3);
  EXPECT_EQ(At<uint8_t>(message, 5), 1);
  EXPECT_EQ(At<uint16_t>(message, 6), 3 | 1 << 2 | 1 << 3 | 1 << 4);
  EXPECT_EQ(At<uint16_t>(message, 8 + 12), 0x10);
  EXPECT_EQ(At<uint16_t>(message, 8 + 14), 0xa09b);
  EXPECT_EQ(At<uint64_t>(message, 24), 0x40'1000u);
  EXPECT_EQ(At<uint64_t>(message, 32), 0x246u);
}

TEST(InterceptHeaderTest, EachPartOfTheExecutionStateHasItsBit) {
  const auto execution = [](const InterceptedState& state) {
    return At<uint16_t>(MakeMsrIntercept(state, HvInterceptAccess::kRead, 0), 6);
  };
  EXPECT_EQ(execution({}), 0);
  EXPECT_EQ(execution({.cpl = 2}), 2);
  EXPECT_EQ(execution({.cr0 = 1}), 1 << 2);
  EXPECT_EQ(execution({.cr0 = 1 << 18}), 1 << 3);
  EXPECT_EQ(execution({.efer = 1 << 10}), 1 << 4);
  EXPECT_EQ(execution({.debug_active = true}), 1 << 5);
  EXPECT_EQ(execution({.interruption_pending = true}), 1 << 6);
  EXPECT_EQ(execution({.vtl = kVtl1}), 1 << 7);
  EXPECT_EQ(execution({.interrupt_shadow = true}), 1 << 12);
}

TEST(InterceptHeaderTest, Cr8IsAboveTheLength) {
  const HvMessage message = MakeMsrIntercept({.instruction_length = 15, .cr8 = 13}, HvInterceptAccess::kRead, 0);
  EXPECT_EQ(At<uint8_t>(message, 4), 0xdf);
}

TEST(MemoryInterceptTest, IsCompleteForADataAccess) {
  const HvMessage message = MakeMemoryIntercept(LongModeState(), {.access = HvInterceptAccess::kWrite,
                                                                  .gpa = Gpa(0x123'4568),
                                                                  .gva = 0x7fff'0000'0568,
                                                                  .tlb_locked = true,
                                                                  .tpr_priority = 2,
                                                                  .instruction = std::span(kCode).first(5)});
  EXPECT_EQ(message.header.type, HvMessageType::kGpaIntercept);
  EXPECT_EQ(message.header.payload_size, 240);
  EXPECT_EQ(message.header.flags, 0);
  EXPECT_EQ(message.header.origination_id, 0u);
  EXPECT_EQ(At<uint8_t>(message, 5), 1);
  EXPECT_EQ(At<uint64_t>(message, 32), 0x1'0246u);
  EXPECT_EQ(At<uint32_t>(message, 40), 6u);
  EXPECT_EQ(At<uint8_t>(message, 44), 5);
  EXPECT_EQ(At<uint8_t>(message, 45), 0b1011);
  EXPECT_EQ(At<uint8_t>(message, 46), 2);
  EXPECT_EQ(At<uint64_t>(message, 48), 0x7fff'0000'0568u);
  EXPECT_EQ(At<uint64_t>(message, 56), 0x123'4568u);
  EXPECT_EQ(std::memcmp(message.payload + 64, kCode.data(), 5), 0);
  EXPECT_EQ(At<uint8_t>(message, 69), 0);
  EXPECT_EQ(At<uint16_t>(message, 80 + 12), 3);
  EXPECT_EQ(At<uint16_t>(message, 96 + 12), 9);
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(At<uint64_t>(message, 112 + 8 * i), 0x1000 + i);
}

TEST(MemoryInterceptTest, FetchHasNoInstructionBytes) {
  const HvMessage message = MakeMemoryIntercept(
      LongModeState(), {.access = HvInterceptAccess::kExecute, .gpa = Gpa(0x1000), .instruction = std::span(kCode).first(5)});
  EXPECT_EQ(At<uint8_t>(message, 5), 2);
  EXPECT_EQ(At<uint8_t>(message, 44), 0);
  EXPECT_EQ(At<uint8_t>(message, 64), 0);
  EXPECT_EQ(At<uint64_t>(message, 32), 0x246u);
}

TEST(MemoryInterceptTest, AccessDuringTheDeliveryOfAnEventHasNoInstructionBytes) {
  InterceptedState state = LongModeState();
  state.interruption_pending = true;
  const HvMessage message = MakeMemoryIntercept(state, {.gpa = Gpa(0x1000), .instruction = std::span(kCode).first(5)});
  EXPECT_EQ(At<uint8_t>(message, 44), 0);
  EXPECT_EQ(At<uint8_t>(message, 64), 0);
  EXPECT_EQ(At<uint64_t>(message, 32), 0x246u);
}

TEST(MemoryInterceptTest, PageWalksAccessHasNoGva) {
  const HvMessage message = MakeMemoryIntercept(LongModeState(), {.gpa = Gpa(0x5000), .gva = std::nullopt});
  EXPECT_EQ(At<uint8_t>(message, 45), 0);
  EXPECT_EQ(At<uint64_t>(message, 48), 0u);
  EXPECT_EQ(At<uint64_t>(message, 56), 0x5000u);
}

TEST(MemoryInterceptTest, SixteenInstructionBytesAtMost) {
  const HvMessage message = MakeMemoryIntercept(LongModeState(), {.gpa = Gpa(0x5000), .instruction = kCode});
  EXPECT_EQ(At<uint8_t>(message, 44), 16);
  EXPECT_EQ(std::memcmp(message.payload + 64, kCode.data(), 16), 0);
}

TEST(MsrInterceptTest, HasNumberAndValue) {
  const HvMessage message = MakeMsrIntercept(LongModeState(), HvInterceptAccess::kRead, 0xc000'0080);
  EXPECT_EQ(message.header.type, HvMessageType::kX64MsrIntercept);
  EXPECT_EQ(message.header.payload_size, 64);
  EXPECT_EQ(At<uint8_t>(message, 5), 0);
  EXPECT_EQ(At<uint32_t>(message, 40), 0xc000'0080u);
  EXPECT_EQ(At<uint64_t>(message, 48), 0x1002u);
  EXPECT_EQ(At<uint64_t>(message, 56), 0x1000u);
}

TEST(RegisterInterceptTest, HasNameAndValue) {
  const HvMessage message =
      MakeRegisterIntercept(LongModeState(), HvRegisterName::kCr4, {.low = 0x6f0, .high = 1}, /*memory_operand=*/false);
  EXPECT_EQ(message.header.type, HvMessageType::kX64RegisterIntercept);
  EXPECT_EQ(message.header.payload_size, 64);
  EXPECT_EQ(At<uint8_t>(message, 5), 1);
  EXPECT_EQ(At<uint8_t>(message, 40), 0);
  EXPECT_EQ(At<uint32_t>(message, 44), 0x0004'0003u);
  EXPECT_EQ(At<uint64_t>(message, 48), 0x6f0u);
  EXPECT_EQ(At<uint64_t>(message, 56), 1u);
  EXPECT_EQ(At<uint8_t>(MakeRegisterIntercept(LongModeState(), HvRegisterName::kGdtr, {}, true), 40), 1);
}

TEST(IoPortInterceptTest, IsComplete) {
  const HvMessage message = MakeIoPortIntercept(LongModeState(), {.access = HvInterceptAccess::kWrite,
                                                                  .port = 0x3f8,
                                                                  .size = 2,
                                                                  .string = true,
                                                                  .rep = true,
                                                                  .instruction = std::span(kCode).first(2)});
  EXPECT_EQ(message.header.type, HvMessageType::kX64IoPortIntercept);
  EXPECT_EQ(message.header.payload_size, 128);
  EXPECT_EQ(At<uint16_t>(message, 40), 0x3f8);
  EXPECT_EQ(At<uint8_t>(message, 42), 2 | 1 << 3 | 1 << 4);
  EXPECT_EQ(At<uint8_t>(message, 43), 2);
  EXPECT_EQ(At<uint64_t>(message, 48), 0x1000u);
  EXPECT_EQ(At<uint8_t>(message, 56), 0x48);
  EXPECT_EQ(At<uint16_t>(message, 72 + 12), 3);
  EXPECT_EQ(At<uint16_t>(message, 88 + 12), 6);
  EXPECT_EQ(At<uint64_t>(message, 104), 0x1001u);
  EXPECT_EQ(At<uint64_t>(message, 112), 0x1006u);
  EXPECT_EQ(At<uint64_t>(message, 120), 0x1007u);
}

}  // namespace
}  // namespace vmm
