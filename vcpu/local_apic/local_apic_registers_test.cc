// What the guest reads and writes, in both modes.
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_msr_layout.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/fake_apic_host.h"
#include "vcpu/local_apic/local_apic.h"

namespace vmm {
namespace {

constexpr ApicRegister kLvts[] = {ApicRegister::kLvtTimer, ApicRegister::kLvtThermal, ApicRegister::kLvtPerformance,
                                  ApicRegister::kLvtLint0, ApicRegister::kLvtLint1,   ApicRegister::kLvtError};
constexpr uint32_t kLvtBits[] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

std::vector<uint8_t> ReadBytes(FakeApicHost& host, uint32_t offset, size_t bytes) {
  std::vector<uint8_t> data(bytes, 0xee);
  host.apic.ReadMmio(kApicDefaultPage + offset, data);
  return data;
}

// --- Reset ---

TEST(LocalApicResetTest, RegistersAreThoseOfTheManual) {
  FakeApicHost host({.id = 5});
  EXPECT_EQ(host.apic.apic_base(), 0xfee0'0800u);
  EXPECT_EQ(host.Read(ApicRegister::kId), 5u << 24);
  EXPECT_EQ(host.Read(ApicRegister::kVersion), 0x0005'0014u);
  EXPECT_EQ(host.Read(ApicRegister::kSvr), 0xffu);
  EXPECT_EQ(host.Read(ApicRegister::kDfr), 0xffff'ffffu);
  for (const ApicRegister lvt : kLvts) EXPECT_EQ(host.Read(lvt), kLvtMasked);
  for (const ApicRegister zero : {ApicRegister::kTpr, ApicRegister::kPpr, ApicRegister::kLdr, ApicRegister::kEsr,
                                  ApicRegister::kIcrLow, ApicRegister::kIcrHigh, ApicRegister::kInitialCount,
                                  ApicRegister::kCurrentCount, ApicRegister::kDivide}) {
    EXPECT_EQ(host.Read(zero), 0u) << static_cast<int>(zero);
  }
  for (uint32_t n = 0; n < 24; ++n) EXPECT_EQ(ReadBytes(host, 0x100 + 16 * n, 4), std::vector<uint8_t>(4, 0));
  EXPECT_EQ(host.apic.stats().invalid_accesses, 0u);
}

TEST(LocalApicResetTest, BspIsSaidInTheBase) {
  FakeApicHost host({.is_bsp = true});
  EXPECT_EQ(host.apic.apic_base(), 0xfee0'0900u);
  EXPECT_TRUE(host.apic.is_bsp());
}

// --- The xAPIC page ---

TEST(LocalApicPageTest, IsWhereTheBaseSays) {
  FakeApicHost host;
  EXPECT_TRUE(host.apic.ClaimsMmio(0xfee0'0000));
  EXPECT_TRUE(host.apic.ClaimsMmio(0xfee0'0fff));
  EXPECT_FALSE(host.apic.ClaimsMmio(0xfedf'ffff));
  EXPECT_FALSE(host.apic.ClaimsMmio(0xfee0'1000));
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, 0x12'3456'7800));
  EXPECT_TRUE(host.apic.ClaimsMmio(0x12'3456'7080));
  EXPECT_FALSE(host.apic.ClaimsMmio(0xfee0'0080));
  host.Enable();
  EXPECT_EQ(host.Read(ApicRegister::kSvr), 0x1ffu) << "moving the page keeps the registers";
}

TEST(LocalApicPageTest, IsNotThereInX2apicModeOrDisabled) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  EXPECT_FALSE(host.apic.ClaimsMmio(0xfee0'0000));
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, kApicDefaultPage));
  EXPECT_FALSE(host.apic.ClaimsMmio(0xfee0'0000));
}

TEST(LocalApicPageTest, ReadsOfAnySizeSeeTheRegistersFourBytes) {
  FakeApicHost host({.id = 7});
  using Bytes = std::vector<uint8_t>;
  EXPECT_EQ(ReadBytes(host, 0x30, 1), Bytes({0x14}));
  EXPECT_EQ(ReadBytes(host, 0x32, 1), Bytes({0x05}));
  EXPECT_EQ(ReadBytes(host, 0x32, 2), Bytes({0x05, 0x00}));
  EXPECT_EQ(ReadBytes(host, 0x31, 4), Bytes({0x00, 0x05, 0x00, 0x00}));
  EXPECT_EQ(ReadBytes(host, 0x20, 8), Bytes({0, 0, 0, 7, 0, 0, 0, 0}));
  EXPECT_EQ(ReadBytes(host, 0x34, 4), Bytes({0, 0, 0, 0}));
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
}

TEST(LocalApicPageTest, WritesOfOtherThanFourAlignedBytesAreDropped) {
  FakeApicHost host;
  const std::array<uint8_t, 8> data = {0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30};
  for (const size_t bytes : {1, 2, 8}) host.apic.WriteMmio(kApicDefaultPage + 0x80, std::span(data).first(bytes));
  for (const uint64_t offset : {0x81, 0x84, 0x8c}) host.apic.WriteMmio(kApicDefaultPage + offset, std::span(data).first(4));
  EXPECT_EQ(host.Read(ApicRegister::kTpr), 0u);
  EXPECT_EQ(host.apic.stats().invalid_accesses, 6u);
  host.apic.WriteMmio(kApicDefaultPage + 0x80, std::span(data).first(4));
  EXPECT_EQ(host.Read(ApicRegister::kTpr), 0x30u);
}

TEST(LocalApicPageTest, ReservedRegistersReadZeroAndAreAnError) {
  std::vector<uint32_t> reserved = {0x000, 0x010, 0x040, 0x050, 0x060, 0x070, 0x090, 0x0c0};
  for (uint32_t offset = 0x290; offset < 0x300; offset += 16) reserved.push_back(offset);
  for (uint32_t offset = 0x3a0; offset < 0x3e0; offset += 16) reserved.push_back(offset);
  for (uint32_t offset = 0x3f0; offset < 0x1000; offset += 16) reserved.push_back(offset);
  for (const uint32_t offset : reserved) {
    FakeApicHost host;
    EXPECT_EQ(ReadBytes(host, offset, 4), std::vector<uint8_t>(4, 0)) << offset;
    host.Write(ApicRegister::kEsr, 0);
    EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrIllegalRegister) << offset;
    const std::array<uint8_t, 4> data = {1, 2, 3, 4};
    host.apic.WriteMmio(kApicDefaultPage + offset, data);
    host.Write(ApicRegister::kEsr, 0);
    EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrIllegalRegister) << offset;
  }
}

TEST(LocalApicPageTest, ReadOnlyRegistersDropWritesWithoutError) {
  FakeApicHost host({.id = 3});
  for (const uint32_t offset : {0x20, 0x30, 0xa0, 0x100, 0x170, 0x180, 0x200, 0x270, 0x390}) {
    const std::vector<uint8_t> before = ReadBytes(host, offset, 4);
    const std::array<uint8_t, 4> data = {0xff, 0xff, 0xff, 0xff};
    host.apic.WriteMmio(kApicDefaultPage + offset, data);
    EXPECT_EQ(ReadBytes(host, offset, 4), before) << offset;
  }
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
}

TEST(LocalApicPageTest, ReservedBitsAreDropped) {
  FakeApicHost host;
  host.Enable();
  const struct {
    ApicRegister reg;
    uint32_t expected;
  } kCases[] = {{ApicRegister::kTpr, 0xff},         {ApicRegister::kLdr, 0xff00'0000}, {ApicRegister::kIcrHigh, 0xff00'0000},
                {ApicRegister::kDivide, 0xb},       {ApicRegister::kSvr, 0x3ff},       {ApicRegister::kInitialCount, 0xffff'ffff},
                {ApicRegister::kDfr, 0xffff'ffff}};
  for (const auto& [reg, expected] : kCases) {
    host.Write(reg, 0xffff'ffff);
    EXPECT_EQ(host.Read(reg), expected) << static_cast<int>(reg);
  }
  for (unsigned n = 0; n < std::size(kLvts); ++n) {
    host.Write(kLvts[n], 0xffff'ffff);
    EXPECT_EQ(host.Read(kLvts[n]), kLvtBits[n]) << n;
  }
  host.Write(ApicRegister::kDfr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kDfr), 0x0fff'ffffu);
}

TEST(LocalApicPageTest, DeliveryStatusIsNeverBusy) {
  FakeApicHost host;
  host.Write(ApicRegister::kIcrHigh, 3u << 24);
  host.Write(ApicRegister::kIcrLow, 0xfff3'3000 | 0x4041);
  EXPECT_EQ(host.Read(ApicRegister::kIcrLow), 0x4041u);
}

// --- x2APIC ---

TEST(LocalApicX2apicTest, RegistersHaveThisModesForm) {
  FakeApicHost host({.id = 0x12345});
  ASSERT_TRUE(host.EnableX2apic());
  EXPECT_EQ(host.apic.apic_base(), 0xfee0'0c00u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kId), 0x12345u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kVersion), 0x0005'0014u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kLdr), 0x1234'0020u) << "cluster 0x1234, bit 5";
  EXPECT_EQ(host.ReadX2(ApicRegister::kSvr), 0x1ffu);
}

TEST(LocalApicX2apicTest, OfferedRegistersAreExactlyTheManuals) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  const auto readable = [](uint32_t n) {
    return n == 0x02 || n == 0x03 || n == 0x08 || n == 0x0a || n == 0x0d || n == 0x0f || (n >= 0x10 && n <= 0x28) || n == 0x30 ||
           (n >= 0x32 && n <= 0x39) || n == 0x3e;
  };
  const auto writable = [](uint32_t n) {
    return n == 0x08 || n == 0x0b || n == 0x0f || n == 0x28 || n == 0x30 || (n >= 0x32 && n <= 0x38) || n == 0x3e || n == 0x3f;
  };
  for (uint32_t n = 0; n < 0x100; ++n) {
    EXPECT_TRUE(LocalApic::Has(0x800 + n));
    EXPECT_EQ(host.ReadMsr(0x800 + n).has_value(), readable(n)) << n;
    EXPECT_EQ(host.apic.WriteMsr(0x800 + n, 0), writable(n)) << n;
  }
}

TEST(LocalApicX2apicTest, EachReservedBitIsRefused) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  const auto expect_writable = [&](ApicRegister reg, uint64_t writable) {
    for (unsigned bit = 0; bit < 64; ++bit) {
      const uint64_t value = uint64_t{1} << bit;
      EXPECT_EQ(host.WriteX2(reg, value), (value & writable) != 0) << static_cast<int>(reg) << " bit " << bit;
    }
  };
  expect_writable(ApicRegister::kTpr, 0xff);
  expect_writable(ApicRegister::kEoi, 0);
  expect_writable(ApicRegister::kEsr, 0);
  expect_writable(ApicRegister::kSvr, 0x3ff);
  expect_writable(ApicRegister::kInitialCount, 0xffff'ffff);
  expect_writable(ApicRegister::kDivide, 0xb);
  expect_writable(ApicRegister::kSelfIpi, 0xff);
  // 12 is read-only, and of no consequence.
  expect_writable(ApicRegister::kIcrLow, 0xffff'ffff'000c'dfff);
  for (unsigned n = 0; n < std::size(kLvts); ++n) {
    const bool is_lint = kLvts[n] == ApicRegister::kLvtLint0 || kLvts[n] == ApicRegister::kLvtLint1;
    expect_writable(kLvts[n], kLvtBits[n] | kLvtDeliveryStatus | (is_lint ? kLvtRemoteIrr : 0));
  }
}

TEST(LocalApicX2apicTest, ReadOnlyBitsOfTheTableAreDropped) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.WriteX2(ApicRegister::kLvtLint0, 0x30 | kLvtDeliveryStatus | kLvtRemoteIrr));
  EXPECT_EQ(host.ReadX2(ApicRegister::kLvtLint0), 0x30u);
  ASSERT_TRUE(host.WriteX2(ApicRegister::kLvtTimer, 0x30 | kLvtDeliveryStatus));
  EXPECT_EQ(host.ReadX2(ApicRegister::kLvtTimer), 0x30u);
}

TEST(LocalApicX2apicTest, RefusedWriteChangesNothing) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.WriteX2(ApicRegister::kTpr, 0x40));
  EXPECT_FALSE(host.WriteX2(ApicRegister::kTpr, 0x150));
  EXPECT_EQ(host.ReadX2(ApicRegister::kTpr), 0x40u);
  EXPECT_FALSE(host.WriteX2(ApicRegister::kIcrLow, 0x1'0000 | 0x4041));
  EXPECT_TRUE(host.bus.messages.empty());
  EXPECT_EQ(host.ReadX2(ApicRegister::kIcrLow), 0u);
}

TEST(LocalApicX2apicTest, MsrsFaultInOtherModes) {
  FakeApicHost host;
  EXPECT_EQ(host.ReadX2(ApicRegister::kId), std::nullopt);
  EXPECT_FALSE(host.WriteX2(ApicRegister::kTpr, 0));
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, kApicDefaultPage));
  EXPECT_EQ(host.ReadX2(ApicRegister::kId), std::nullopt);
  EXPECT_FALSE(host.WriteX2(ApicRegister::kTpr, 0));
}

// --- IA32_APIC_BASE ---

TEST(LocalApicBaseTest, OnlyTheManualsTransitionsAreLegal) {
  constexpr uint64_t kDisabled = kApicDefaultPage;
  constexpr uint64_t kXapic = kDisabled | kApicBaseEnabled;
  constexpr uint64_t kX2apic = kXapic | kApicBaseX2apic;
  constexpr uint64_t kInvalid = kDisabled | kApicBaseX2apic;
  const struct {
    std::vector<uint64_t> path;
    uint64_t to;
    bool legal;
  } kCases[] = {
      {{kDisabled}, kDisabled, true},        {{kDisabled}, kXapic, true},         {{kDisabled}, kX2apic, false},
      {{kDisabled}, kInvalid, false},        {{kXapic}, kDisabled, true},         {{kXapic}, kXapic, true},
      {{kXapic}, kX2apic, true},             {{kXapic}, kInvalid, false},         {{kX2apic}, kDisabled, true},
      {{kX2apic}, kXapic, false},            {{kX2apic}, kX2apic, true},          {{kX2apic}, kInvalid, false},
      {{kX2apic, kDisabled}, kX2apic, false}, {{kX2apic, kDisabled}, kXapic, true},
  };
  for (const auto& [path, to, legal] : kCases) {
    FakeApicHost host;
    for (const uint64_t step : path) ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, step));
    EXPECT_EQ(host.apic.WriteMsr(kMsrApicBase, to), legal) << std::hex << path.back() << " to " << to;
    EXPECT_EQ(host.ReadMsr(kMsrApicBase), legal ? to : path.back());
  }
}

TEST(LocalApicBaseTest, ReservedBitsAreRefused) {
  FakeApicHost host({.physical_address_bits = 40});
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t value = host.apic.apic_base() | uint64_t{1} << bit;
    const bool reserved = bit < 8 || bit == 9 || bit >= 40;
    if (value == host.apic.apic_base() || bit == 10) continue;
    EXPECT_EQ(host.apic.WriteMsr(kMsrApicBase, value), !reserved) << bit;
    ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, 0xfee0'0800));
  }
}

TEST(LocalApicBaseTest, X2apicBitIsReservedWhereThatIsNotOffered) {
  FakeApicHost host({.has_x2apic = false});
  EXPECT_FALSE(host.apic.WriteMsr(kMsrApicBase, 0xfee0'0c00));
}

TEST(LocalApicBaseTest, X2apicModeKeepsRegistersButTheHighHalfOfIcr) {
  FakeApicHost host;
  host.Enable();
  host.Write(ApicRegister::kTpr, 0x21);
  host.Write(ApicRegister::kLvtError, 0x77);
  host.Write(ApicRegister::kIcrHigh, 0x0300'0000);
  host.Write(ApicRegister::kIcrLow, 0x4055);
  host.PostFixed(0x91);
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, 0xfee0'0c00));
  EXPECT_EQ(host.ReadX2(ApicRegister::kTpr), 0x21u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kSvr), 0x1ffu);
  EXPECT_EQ(host.ReadX2(ApicRegister::kLvtError), 0x77u);
  EXPECT_EQ(host.ReadX2(ApicRegister::kIcrLow), 0x4055u);
  EXPECT_EQ(host.apic.NextInterrupt(), 0x91);
}

TEST(LocalApicBaseTest, DisablingLosesAllState) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  host.PostFixed(0x91);
  ASSERT_EQ(host.TakeInterrupt(), 0x91);
  host.PostFixed(0xa1);
  ASSERT_TRUE(host.WriteX2(ApicRegister::kInitialCount, 100));
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, kApicDefaultPage));
  EXPECT_EQ(host.apic.NextInterrupt(), std::nullopt);
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, kApicDefaultPage | kApicBaseEnabled));
  EXPECT_EQ(host.Read(ApicRegister::kSvr), 0xffu);
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0u);
  EXPECT_EQ(host.Read(ApicRegister::kInitialCount), 0u);
  EXPECT_EQ(host.apic.NextInterrupt(), std::nullopt);
}

TEST(LocalApicBaseTest, DisabledReceivesNothing) {
  FakeApicHost host;
  host.Enable();
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, kApicDefaultPage));
  host.PostFixed(0x41);
  for (const auto mode : {ApicDeliveryMode::kNmi, ApicDeliveryMode::kInit, ApicDeliveryMode::kStartup, ApicDeliveryMode::kSmi}) {
    host.apic.Post(mode, 0x10);
  }
  EXPECT_FALSE(host.apic.HasEvent());
  EXPECT_FALSE(host.apic.HasDeliverable());
  EXPECT_EQ(host.apic.stats().dropped, 5u);
  EXPECT_FALSE(host.apic.Matches(ApicDestination{.is_broadcast = true}));
}

// --- SVR ---

TEST(LocalApicSvrTest, DisablingBySoftwareMasksTheTable) {
  FakeApicHost host;
  host.Enable();
  for (const ApicRegister lvt : kLvts) host.Write(lvt, 0x40);
  host.Write(ApicRegister::kSvr, 0xff);
  for (const ApicRegister lvt : kLvts) EXPECT_EQ(host.Read(lvt), 0x40 | kLvtMasked);
  for (const ApicRegister lvt : kLvts) {
    host.Write(lvt, 0x50);
    EXPECT_EQ(host.Read(lvt), 0x50 | kLvtMasked) << "the mask cannot be cleared";
  }
  host.Enable();
  for (const ApicRegister lvt : kLvts) EXPECT_EQ(host.Read(lvt), 0x50 | kLvtMasked) << "nor does enabling clear it";
}

TEST(LocalApicSvrTest, EoiSuppressionIsThereWhereOffered) {
  FakeApicHost host({.suppresses_eoi_broadcasts = true});
  EXPECT_EQ(host.Read(ApicRegister::kVersion), 0x0105'0014u);
  host.Write(ApicRegister::kSvr, 0x11ff);
  EXPECT_EQ(host.Read(ApicRegister::kSvr), 0x11ffu);
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, 0xfee0'0c00));
  EXPECT_TRUE(host.WriteX2(ApicRegister::kSvr, 0x11ff));
}

// --- ESR ---

TEST(LocalApicEsrTest, ShowsWhatWasThereAtTheLastWrite) {
  FakeApicHost host;
  EXPECT_EQ(ReadBytes(host, 0x40, 4), std::vector<uint8_t>(4, 0));
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
  host.Write(ApicRegister::kEsr, 0xffff'ffff);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrIllegalRegister);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrIllegalRegister);
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
}

TEST(LocalApicEsrTest, IllegalVectorIsAnErrorToSend) {
  for (const uint32_t low : {0x4000u, 0x400fu, 0x4100u}) {  // fixed, fixed, lowest priority
    FakeApicHost host;
    host.Enable();
    host.Write(ApicRegister::kIcrLow, low);
    host.Write(ApicRegister::kEsr, 0);
    EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrSendIllegalVector) << low;
    EXPECT_EQ(host.bus.messages.size(), 1u) << "it is sent, and an error of those that receive it";
  }
}

TEST(LocalApicEsrTest, VectorOfOtherModesIsNotChecked) {
  FakeApicHost host;
  host.Enable();
  for (const uint32_t low : {0x4400u, 0x4500u, 0x4600u, 0x4200u}) host.Write(ApicRegister::kIcrLow, low);
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
}

TEST(LocalApicEsrTest, IllegalVectorIsAnErrorToReceive) {
  FakeApicHost host;
  host.Enable();
  host.PostFixed(0x0f);
  host.apic.RunPending();
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrReceiveIllegalVector);
  EXPECT_FALSE(host.apic.HasDeliverable());
}

TEST(LocalApicEsrTest, IllegalSelfIpiIsBoth) {
  FakeApicHost host;
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.WriteX2(ApicRegister::kSelfIpi, 0x0f));
  ASSERT_TRUE(host.WriteX2(ApicRegister::kEsr, 0));
  EXPECT_EQ(host.ReadX2(ApicRegister::kEsr), kEsrSendIllegalVector | kEsrReceiveIllegalVector);
}

TEST(LocalApicEsrTest, IllegalVectorInTheTableIsAnErrorWhenItFires) {
  FakeApicHost host;
  host.Enable();
  host.Write(ApicRegister::kLvtThermal, 0x05);
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
  host.apic.RaiseThermal();
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrReceiveIllegalVector);
}

TEST(LocalApicEsrTest, ErrorInterruptsOnceUntilEsrIsWritten) {
  FakeApicHost host;
  host.Enable();
  host.Write(ApicRegister::kLvtError, 0xfe);
  ReadBytes(host, 0x40, 4);
  EXPECT_EQ(host.TakeInterrupt(), 0xfe);
  host.Eoi();
  ReadBytes(host, 0x40, 4);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
  host.Write(ApicRegister::kEsr, 0);
  ReadBytes(host, 0x40, 4);
  EXPECT_EQ(host.TakeInterrupt(), 0xfe);
}

TEST(LocalApicEsrTest, ErrorOfAnotherThreadsMessageInterruptsByRunPending) {
  FakeApicHost host;
  host.Enable();
  host.Write(ApicRegister::kLvtError, 0xfe);
  ASSERT_TRUE(host.apic.Arm());
  host.PostFixed(3);
  host.PostFixed(3);
  EXPECT_EQ(host.kick.kicks, 1);
  EXPECT_FALSE(host.apic.HasDeliverable());
  host.apic.RunPending();
  EXPECT_EQ(host.TakeInterrupt(), 0xfe);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

TEST(LocalApicEsrTest, ErrorThatEsrHasShownDoesNotInterrupt) {
  FakeApicHost host;
  host.Enable();
  host.Write(ApicRegister::kLvtError, 0xfe);
  host.PostFixed(3);
  host.Write(ApicRegister::kEsr, 0);
  host.apic.RunPending();
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

TEST(LocalApicEsrTest, IllegalVectorOfTheErrorEntryItselfEnds) {
  FakeApicHost host;
  host.Enable();
  host.Write(ApicRegister::kLvtError, 0x02);
  ReadBytes(host, 0x40, 4);
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), kEsrIllegalRegister | kEsrReceiveIllegalVector);
}

// --- TPR and CR8 ---

TEST(LocalApicTprTest, Cr8IsItsHighHalf) {
  FakeApicHost host;
  host.Write(ApicRegister::kTpr, 0x57);
  EXPECT_EQ(host.apic.cr8(), 5u);
  host.apic.SyncCr8(5);
  EXPECT_EQ(host.Read(ApicRegister::kTpr), 0x57u) << "unchanged";
  host.apic.SyncCr8(9);
  EXPECT_EQ(host.Read(ApicRegister::kTpr), 0x90u);
  EXPECT_EQ(host.apic.priority_class(), 9u);
}

// --- Hyper-V's MSRs ---

TEST(LocalApicHyperVTest, TprIsTheRegister) {
  FakeApicHost host;
  ASSERT_TRUE(host.apic.WriteMsr(kHvMsrTpr, 0x35));
  EXPECT_EQ(host.Read(ApicRegister::kTpr), 0x35u);
  EXPECT_EQ(host.ReadMsr(kHvMsrTpr), 0x35u);
  EXPECT_FALSE(host.apic.WriteMsr(kHvMsrTpr, 0x100));
  EXPECT_EQ(host.ReadMsr(kHvMsrTpr), 0x35u);
}

TEST(LocalApicHyperVTest, EoiIsWriteOnly) {
  FakeApicHost host;
  host.Enable();
  host.PostFixed(0x41);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.ReadMsr(kHvMsrEoi), std::nullopt);
  EXPECT_FALSE(host.apic.WriteMsr(kHvMsrEoi, uint64_t{1} << 32));
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0x40u);
  EXPECT_TRUE(host.apic.WriteMsr(kHvMsrEoi, 0));
  EXPECT_EQ(host.Read(ApicRegister::kPpr), 0u);
}

TEST(LocalApicHyperVTest, IcrHasTheFormOfTheMode) {
  FakeApicHost host({.id = 1});
  ASSERT_TRUE(host.apic.WriteMsr(kHvMsrIcr, 0x02ab'cdef'0000'4041));
  ASSERT_EQ(host.bus.messages.size(), 1u);
  EXPECT_EQ(host.bus.messages[0], (ApicMessage{.vector = 0x41, .destination = {.number = 2}, .sender = 1}));
  EXPECT_EQ(host.ReadMsr(kHvMsrIcr), 0x0200'0000'0000'4041u);
  ASSERT_TRUE(host.EnableX2apic());
  ASSERT_TRUE(host.apic.WriteMsr(kHvMsrIcr, 0x02ab'cdef'0000'4041));
  EXPECT_EQ(host.bus.messages.back().destination, (ApicDestination{.number = 0x02ab'cdef}));
}

TEST(LocalApicHyperVTest, MsrsFaultWhereTheApicIsDisabled) {
  FakeApicHost host;
  ASSERT_TRUE(host.apic.WriteMsr(kMsrApicBase, kApicDefaultPage));
  for (const uint32_t msr : {kHvMsrEoi, kHvMsrIcr, kHvMsrTpr}) {
    EXPECT_EQ(host.ReadMsr(msr), std::nullopt);
    EXPECT_FALSE(host.apic.WriteMsr(msr, 0));
  }
}

TEST(LocalApicMsrTest, OthersAreNotItsOwn) {
  FakeApicHost host;
  for (const uint32_t msr : {0x1au, 0x1cu, 0x6dfu, 0x6e1u, 0x7ffu, 0x900u, 0x4000'006fu, 0x4000'0073u}) {
    EXPECT_FALSE(LocalApic::Has(msr)) << msr;
    EXPECT_EQ(host.ReadMsr(msr), std::nullopt);
    EXPECT_FALSE(host.apic.WriteMsr(msr, 0));
  }
  for (const uint32_t msr : {kMsrApicBase, kMsrTscDeadline, kHvMsrEoi, kHvMsrIcr, kHvMsrTpr}) EXPECT_TRUE(LocalApic::Has(msr));
}

}  // namespace
}  // namespace vmm
