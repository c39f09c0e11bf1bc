#include "vcpu/local_apic/apic_directory.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include <gtest/gtest.h>

#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/fake_apic_host.h"
#include "vcpu/local_apic/local_apic.h"

namespace vmm {
namespace {

struct Processor {
  Processor(uint32_t id, ApicBus& bus) : apic({.id = id, .is_bsp = id == 0}, bus, clock, deadline, kick) {
    EXPECT_TRUE(apic.WriteMsr(kMsrApicBase, apic.apic_base()));
    Write(ApicRegister::kSvr, 0x1ff);
  }
  void Write(ApicRegister reg, uint32_t value) {
    const uint8_t data[4] = {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value >> 16),
                             static_cast<uint8_t>(value >> 24)};
    apic.WriteMmio(kApicDefaultPage + static_cast<uint64_t>(reg) * 16, data);
  }
  void Send(uint32_t high, uint32_t low) {
    Write(ApicRegister::kIcrHigh, high);
    Write(ApicRegister::kIcrLow, low);
  }
  void SendX2(uint32_t destination, uint32_t low) {
    EXPECT_TRUE(apic.WriteMsr(kMsrX2apicFirst + 0x30, uint64_t{destination} << 32 | low));
  }
  void EnterX2apic() { EXPECT_TRUE(apic.WriteMsr(kMsrApicBase, apic.apic_base() | kApicBaseX2apic)); }
  FakeApicClock clock;
  FakeApicDeadline deadline;
  FakeKick kick;
  LocalApic apic;
};

class FakeIoApic final : public EoiBroadcastSink {
 public:
  void OnEoiBroadcast(uint8_t vector) noexcept override { vectors.push_back(vector); }
  std::vector<uint8_t> vectors;
};

class ApicDirectoryTest : public testing::Test {
 protected:
  void Make(uint32_t count) {
    for (uint32_t id = 0; id < count; ++id) {
      processors.push_back(std::make_unique<Processor>(id, directory));
      ASSERT_TRUE(directory.Add(processors.back()->apic).ok());
    }
  }
  Processor& operator[](uint32_t id) { return *processors[id]; }
  // Who has the vector, which goes.
  std::vector<uint32_t> TakeReceivers(uint8_t vector) {
    std::vector<uint32_t> ids;
    for (uint32_t id = 0; id < processors.size(); ++id) {
      LocalApic& apic = processors[id]->apic;
      if (apic.NextInterrupt() != vector) continue;
      apic.Accept(vector);
      static_cast<void>(apic.WriteMsr(0x4000'0070, 0));
      ids.push_back(id);
    }
    return ids;
  }
  using Ids = std::vector<uint32_t>;

  FakeIoApic io_apic;
  ApicDirectory directory{&io_apic};
  std::vector<std::unique_ptr<Processor>> processors;
};

TEST_F(ApicDirectoryTest, WantsIdsInOrder) {
  Processor other(1, directory);
  EXPECT_EQ(directory.Add(other.apic).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ApicDirectoryTest, PhysicalNamesOne) {
  Make(4);
  (*this)[0].Send(2u << 24, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({2}));
  (*this)[0].Send(0, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0})) << "itself";
  (*this)[0].Send(9u << 24, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids());
}

TEST_F(ApicDirectoryTest, BroadcastAndShorthandsNameAll) {
  Make(3);
  (*this)[1].Send(0xffu << 24, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1, 2}));
  (*this)[1].Send(0xffu << 24, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1, 2})) << "logical";
  (*this)[1].Send(0, 0x8'4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1, 2}));
  (*this)[1].Send(0, 0xc'4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 2}));
  (*this)[1].Send(0, 0x4'4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({1}));
}

TEST_F(ApicDirectoryTest, FlatModelMatchesBits) {
  Make(4);
  for (uint32_t id = 0; id < 4; ++id) (*this)[id].Write(ApicRegister::kLdr, 1u << (24 + id));
  (*this)[0].Send(0x0a00'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({1, 3}));
  (*this)[0].Send(0xf000'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids());
  (*this)[2].Write(ApicRegister::kLdr, 0);
  (*this)[0].Send(0x0400'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids());
}

TEST_F(ApicDirectoryTest, ClusterModelMatchesTheClusterAndBits) {
  Make(4);
  const std::array<uint32_t, 4> ldr = {0x11, 0x12, 0x21, 0x24};
  for (uint32_t id = 0; id < 4; ++id) {
    (*this)[id].Write(ApicRegister::kDfr, 0x0fff'ffff);
    (*this)[id].Write(ApicRegister::kLdr, ldr[id] << 24);
  }
  (*this)[0].Send(0x1300'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1}));
  (*this)[0].Send(0x2500'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({2, 3}));
  (*this)[0].Send(0x3f00'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids());
  (*this)[0].Send(0xff00'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1, 2, 3}));
}

TEST_F(ApicDirectoryTest, ReservedModelMatchesNothing) {
  Make(2);
  (*this)[1].Write(ApicRegister::kDfr, 0x5fff'ffff);
  (*this)[1].Write(ApicRegister::kLdr, 0x5100'0000);
  (*this)[0].Send(0x5100'0000, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids());
}

TEST_F(ApicDirectoryTest, X2apicLogicalIsClusterAndBits) {
  Make(20);
  for (auto& processor : processors) processor->EnterX2apic();
  (*this)[0].SendX2(0x0000'8005, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 2, 15}));
  (*this)[0].SendX2(0x0001'0009, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({16, 19}));
  (*this)[0].SendX2(0x0002'ffff, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids());
  (*this)[0].SendX2(0xff, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids()) << "no broadcast in this mode";
  (*this)[0].SendX2(0xffff'ffff, 0xc041);  // the level bit means nothing
  EXPECT_EQ(TakeReceivers(0x41).size(), 20u);
}

TEST_F(ApicDirectoryTest, ModesMix) {
  Make(3);
  (*this)[2].EnterX2apic();
  (*this)[2].SendX2(1, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({1}));
  (*this)[2].SendX2(0xffff'ffff, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1, 2}));
  (*this)[0].Send(0xffu << 24, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({0, 1, 2}));
  (*this)[0].Send(2u << 24, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({2}));
  (*this)[1].Write(ApicRegister::kLdr, 0x0200'0000);
  (*this)[2].SendX2(0x102, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids()) << "not a logical id of eight bits";
  (*this)[2].SendX2(0x002, 0x4841);
  EXPECT_EQ(TakeReceivers(0x41), Ids({1}));
}

TEST_F(ApicDirectoryTest, IdAbove254IsReachedInX2apicMode) {
  Make(260);
  (*this)[0].EnterX2apic();
  (*this)[258].EnterX2apic();
  (*this)[0].SendX2(258, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({258}));
  (*this)[0].SendX2(255, 0x4041);
  EXPECT_EQ(TakeReceivers(0x41), Ids({255}));
}

TEST_F(ApicDirectoryTest, LowestPriorityGoesToOneOfTheLeastPriority) {
  Make(4);
  for (uint32_t id = 0; id < 4; ++id) (*this)[id].Write(ApicRegister::kTpr, id == 2 ? 0x10 : 0x20 + id);
  for (int n = 0; n < 8; ++n) {
    (*this)[0].Send(0xffu << 24, 0x4141);
    EXPECT_EQ(TakeReceivers(0x41), Ids({2}));
  }
}

TEST_F(ApicDirectoryTest, LowestPriorityTakesTurnsAmongEquals) {
  Make(3);
  std::array<int, 3> counts{};
  for (int n = 0; n < 9; ++n) {
    (*this)[0].Send(0xffu << 24, 0x4141);
    const Ids ids = TakeReceivers(0x41);
    ASSERT_EQ(ids.size(), 1u);
    ++counts[ids[0]];
  }
  EXPECT_EQ(counts, (std::array<int, 3>{3, 3, 3}));
}

TEST_F(ApicDirectoryTest, LowestPriorityPassesOverWhoDoesNotReceive) {
  Make(3);
  (*this)[0].Write(ApicRegister::kSvr, 0xff);
  (*this)[1].Write(ApicRegister::kTpr, 0xf0);
  (*this)[2].Write(ApicRegister::kTpr, 0x80);
  (*this)[0].Send(0, 0xc'4191);  // all but self
  EXPECT_EQ(TakeReceivers(0x91), Ids({2}));
  (*this)[0].Send(0, 0x4191);
  EXPECT_EQ(TakeReceivers(0x91), Ids());
}

TEST_F(ApicDirectoryTest, OtherModesReachTheNamed) {
  Make(3);
  (*this)[0].Send(1u << 24, 0x4400);
  EXPECT_TRUE((*this)[1].apic.TakeNmi());
  EXPECT_FALSE((*this)[2].apic.TakeNmi());
  (*this)[0].Send(0, 0xc'4500);
  (*this)[0].Send(0, 0xc'4690);
  for (const uint32_t id : {1, 2}) {
    EXPECT_TRUE((*this)[id].apic.TakeInit());
    EXPECT_EQ((*this)[id].apic.TakeStartup(), 0x90);
  }
  EXPECT_FALSE((*this)[0].apic.HasEvent());
}

TEST_F(ApicDirectoryTest, IllegalVectorIsAnErrorOfEachReceiver) {
  Make(2);
  (*this)[0].Send(1u << 24, 0x4003);
  (*this)[1].Write(ApicRegister::kEsr, 0);
  std::array<uint8_t, 4> esr{};
  (*this)[1].apic.ReadMmio(kApicDefaultPage + 0x280, esr);
  EXPECT_EQ(esr[0], kEsrReceiveIllegalVector);
}

TEST_F(ApicDirectoryTest, EoiOfALevelGoesToTheIoApic) {
  Make(1);
  LocalApic& apic = (*this)[0].apic;
  apic.Post(ApicDeliveryMode::kFixed, 0x61, /*level=*/true);
  apic.Accept(0x61);
  (*this)[0].Write(ApicRegister::kEoi, 0);
  EXPECT_EQ(io_apic.vectors, std::vector<uint8_t>({0x61}));
}

TEST_F(ApicDirectoryTest, DestinationThatIsArmedIsKicked) {
  Make(2);
  ASSERT_TRUE((*this)[1].apic.Arm());
  (*this)[0].Send(1u << 24, 0x4041);
  EXPECT_EQ((*this)[1].kick.kicks, 1);
  EXPECT_EQ((*this)[0].kick.kicks, 0);
}

}  // namespace
}  // namespace vmm
