#include "vcpu/local_apic/apic_sint_interrupts.h"

#include <cstdint>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_types.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/fake_apic_host.h"

namespace vmm {
namespace {

constexpr Sint kSint2 = Sint::Of<2>();
constexpr Sint kSint3 = Sint::Of<3>();

class Sink final : public SintEoiSink {
 public:
  void OnEoi(Sint sint) noexcept override { eois.push_back(sint.raw()); }
  std::vector<uint8_t> eois;
};

struct ApicSintInterruptsTest : testing::Test {
  ApicSintInterruptsTest() {
    host.Enable();
    sints.SetSink(sink);
  }
  FakeApicHost host;
  ApicSintInterrupts sints{host.apic};
  Sink sink;
};

TEST_F(ApicSintInterruptsTest, RaisesItsVector) {
  sints.Configure(kSint2, 0x41);
  sints.Raise(kSint2);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(ApicSintInterruptsTest, MaskedPollingAndUnconfiguredRaiseNothing) {
  sints.Raise(kSint3);
  sints.Configure(kSint2, 0x41 | kHvSintMasked);
  sints.Raise(kSint2);
  sints.Configure(kSint2, 0x41 | kHvSintPolling);
  sints.Raise(kSint2);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

TEST_F(ApicSintInterruptsTest, NewVectorHoldsFromTheNextRaise) {
  sints.Configure(kSint2, 0x41);
  sints.Raise(kSint2);
  sints.Configure(kSint2, 0x51);
  sints.Raise(kSint2);
  EXPECT_EQ(host.TakeInterrupt(), 0x51);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), 0x41) << "what was raised stays";
}

TEST_F(ApicSintInterruptsTest, AutoEoiVectorIsNotInService) {
  sints.Configure(kSint2, 0x41 | kHvSintAutoEoi);
  sints.Raise(kSint2);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.apic.priority_class(), 0);
  sints.Configure(kSint2, 0x41);
  sints.Raise(kSint2);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.apic.priority_class(), 4);
}

TEST_F(ApicSintInterruptsTest, AutoEoiOfOneSourceIsOfItsVector) {
  sints.Configure(kSint2, 0x41 | kHvSintAutoEoi);
  sints.Configure(kSint3, 0x41);
  sints.Raise(kSint3);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.apic.priority_class(), 0);
  sints.Configure(kSint2, 0x41 | kHvSintAutoEoi | kHvSintMasked);
  sints.Raise(kSint3);
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
  EXPECT_EQ(host.apic.priority_class(), 4);
}

TEST_F(ApicSintInterruptsTest, EoiIsToldWhileWatched) {
  sints.Configure(kSint2, 0x41);
  const auto raise_and_end = [&] {
    sints.Raise(kSint2);
    EXPECT_EQ(host.TakeInterrupt(), 0x41);
    host.Eoi();
  };
  raise_and_end();
  EXPECT_TRUE(sink.eois.empty());
  sints.WatchEoi(kSint2, true);
  raise_and_end();
  EXPECT_EQ(sink.eois, std::vector<uint8_t>({2}));
  sints.WatchEoi(kSint2, false);
  raise_and_end();
  EXPECT_EQ(sink.eois.size(), 1u);
}

TEST_F(ApicSintInterruptsTest, EoiOfASharedVectorIsToldOnce) {
  for (const Sint sint : {kSint2, kSint3}) {
    sints.Configure(sint, 0x41);
    sints.WatchEoi(sint, true);
  }
  sints.Raise(kSint3);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.Eoi();
  EXPECT_EQ(sink.eois, std::vector<uint8_t>({2}));
}

// Synic::OnEoi writes the next message and raises from within.
TEST_F(ApicSintInterruptsTest, RaiseFromWithinTheEoiIsNotLost) {
  struct Raising final : SintEoiSink {
    explicit Raising(ApicSintInterrupts& s) : sints(s) {}
    void OnEoi(Sint sint) noexcept override { sints.Raise(sint); }
    ApicSintInterrupts& sints;
  } raising(sints);
  sints.SetSink(raising);
  sints.Configure(kSint2, 0x41);
  sints.WatchEoi(kSint2, true);
  sints.Raise(kSint2);
  ASSERT_EQ(host.TakeInterrupt(), 0x41);
  host.Eoi();
  EXPECT_EQ(host.TakeInterrupt(), 0x41);
}

TEST_F(ApicSintInterruptsTest, DirectVectorIsRaisedAndBelowSixteenDropped) {
  sints.RaiseVector(0x91);
  EXPECT_EQ(host.TakeInterrupt(), 0x91);
  sints.RaiseVector(0x0f);
  host.apic.RunPending();
  host.Write(ApicRegister::kEsr, 0);
  EXPECT_EQ(host.Read(ApicRegister::kEsr), 0u);
}

TEST_F(ApicSintInterruptsTest, NothingIsRaisedWhereTheApicIsDisabled) {
  sints.Configure(kSint2, 0x41);
  host.Write(ApicRegister::kSvr, 0xff);
  sints.Raise(kSint2);
  EXPECT_EQ(host.TakeInterrupt(), std::nullopt);
}

}  // namespace
}  // namespace vmm
