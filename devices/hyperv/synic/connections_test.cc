#include "devices/hyperv/synic/connections.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/synic/synic_for_test.h"

namespace vmm {
namespace {

constexpr Sint kSint = Sint::Of<2>();
constexpr Poster kPoster = Poster::OfVp(VpIndex(0));
constexpr uint32_t kVmBus = 1;

// Two VPs with VTL0 and the first of them with VTL1.
class FakeSynicDirectory final : public SynicDirectory {
 public:
  [[nodiscard]] Synic* Find(VpIndex vp, Vtl vtl) noexcept override {
    if (vtl == kVtl1 && vp == VpIndex(0)) return &*secure;
    return vtl == kVtl0 && vp.raw() < 2 ? &*vps[vp.raw()] : nullptr;
  }
  [[nodiscard]] uint32_t vp_count() const noexcept override { return 2; }

  std::array<SynicForTest, 2> vps;
  SynicForTest secure;
};

class ConnectionTableTest : public testing::Test {
 protected:
  ConnectionTableTest() {
    for (SynicForTest& vp : synics.vps) vp.Enable(kSint);
    synics.secure.Enable(kSint);
  }
  static Port MessagePort(uint32_t vp, Vtl vtl = kVtl0) {
    return {.id = 100 + vp, .type = PortType::kMessage, .vp = VpIndex(vp), .vtl = vtl, .sint = kSint};
  }
  static Port EventPort(uint32_t vp, uint32_t base, uint32_t count) {
    return {.id = 200 + vp,
            .type = PortType::kEvent,
            .vp = VpIndex(vp),
            .vtl = kVtl0,
            .sint = kSint,
            .base_flag = base,
            .flag_count = count};
  }
  HvStatus Post(uint32_t connection, uint32_t type = kVmBus, size_t bytes = 5) {
    const std::vector<uint8_t> payload(bytes, 0xab);
    return table.PostMessage(kPoster, connection, type, payload);
  }

  FakeSynicDirectory synics;
  ConnectionTable table{synics};
};

TEST_F(ConnectionTableTest, MessageReachesItsPort) {
  ASSERT_OK(table.Add(1, MessagePort(1)));
  ASSERT_OK(table.Add(0xffff'ffff, MessagePort(0, kVtl1)));
  EXPECT_EQ(Post(1, 0x7fff'ffff, 240), HvStatus::kSuccess);
  const HvMessage& slot = synics.vps[1].guest(kSint).slot;
  EXPECT_EQ(slot.header.type, static_cast<HvMessageType>(0x7fff'ffff));
  EXPECT_EQ(slot.header.payload_size, 240);
  EXPECT_EQ(slot.header.flags, 0);
  EXPECT_EQ(slot.header.origination_id, 101u);
  EXPECT_EQ(slot.payload[239], 0xab);
  EXPECT_EQ(synics.vps[0].guest(kSint).Type(), HvMessageType::kNone);
  EXPECT_EQ(Post(0xffff'ffff, kVmBus, 0), HvStatus::kSuccess);
  EXPECT_EQ(synics.secure.guest(kSint).slot.header.payload_size, 0);
  EXPECT_EQ(synics.secure.guest(kSint).Type(), HvMessageType::kVmBus);
}

TEST_F(ConnectionTableTest, MessageStatuses) {
  ASSERT_OK(table.Add(1, MessagePort(1)));
  ASSERT_OK(table.Add(2, EventPort(1, 0, 1)));
  ASSERT_OK(table.Add(3, MessagePort(2)));         // no such VP
  ASSERT_OK(table.Add(4, MessagePort(1, kVtl1)));  // no such VTL there yet
  EXPECT_EQ(Post(1, 0), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(1, 0x8000'0000), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(1, 0x8000'0010), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(1, kVmBus, 241), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(0), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(Post(0xffff'ffff), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(Post(2), HvStatus::kInvalidPortId);
  EXPECT_EQ(Post(3), HvStatus::kInvalidVpIndex);
  EXPECT_EQ(Post(4), HvStatus::kInvalidVpIndex);
  for (int n = 0; n < 17; ++n) EXPECT_EQ(Post(1), HvStatus::kSuccess);
  EXPECT_EQ(Post(1), HvStatus::kInsufficientBuffers);
  synics.vps[1].Write(kHvMsrScontrol, 0);
  EXPECT_EQ(Post(1), HvStatus::kInvalidSynicState);
}

TEST_F(ConnectionTableTest, EventReachesItsFlag) {
  ASSERT_OK(table.Add(7, EventPort(0, 2040, 8)));
  EXPECT_EQ(table.SignalEvent(7, 0), HvStatus::kSuccess);
  EXPECT_EQ(table.SignalEvent(7, 7), HvStatus::kSuccess);
  EXPECT_EQ(synics.vps[0].event_byte(kSint, 2047), 0x81);
  EXPECT_EQ(synics.vps[0].interrupts.edges[kSint.raw()], 2);
}

TEST_F(ConnectionTableTest, EventStatuses) {
  ASSERT_OK(table.Add(1, MessagePort(1)));
  ASSERT_OK(table.Add(2, EventPort(1, 10, 3)));
  ASSERT_OK(table.Add(3, EventPort(9, 10, 3)));
  EXPECT_EQ(table.SignalEvent(2, 3), HvStatus::kInvalidParameter);
  EXPECT_EQ(table.SignalEvent(2, 0xffff), HvStatus::kInvalidParameter);
  EXPECT_EQ(table.SignalEvent(5, 0), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(table.SignalEvent(1, 0), HvStatus::kInvalidPortId);
  EXPECT_EQ(table.SignalEvent(3, 0), HvStatus::kInvalidVpIndex);
  synics.vps[1].WriteSint(kSint, kHvSintMasked);
  EXPECT_EQ(table.SignalEvent(2, 0), HvStatus::kInvalidSynicState);
  EXPECT_EQ(synics.vps[1].event_byte(kSint, 10), 0);
}

TEST_F(ConnectionTableTest, AnyVpIsTheFirstThatTakesIt) {
  Port port = MessagePort(0);
  port.vp = kHvAnyVp;
  ASSERT_OK(table.Add(1, port));
  Port event = EventPort(0, 0, 1);
  event.vp = kHvAnyVp;
  ASSERT_OK(table.Add(2, event));
  synics.vps[0].Write(kHvMsrSimp, 0);
  EXPECT_EQ(Post(1), HvStatus::kSuccess);
  EXPECT_EQ(synics.vps[1].guest(kSint).Type(), HvMessageType::kVmBus);
  EXPECT_EQ(table.SignalEvent(2, 0), HvStatus::kSuccess);
  EXPECT_EQ(synics.vps[0].event_byte(kSint, 0), 1);
  for (SynicForTest& vp : synics.vps) vp.Write(kHvMsrScontrol, 0);
  EXPECT_EQ(Post(1), HvStatus::kInvalidVpIndex);
  EXPECT_EQ(table.SignalEvent(2, 0), HvStatus::kInvalidVpIndex);
}

TEST_F(ConnectionTableTest, AddChecksAndRemoveForgets) {
  ASSERT_OK(table.Add(5, MessagePort(0)));
  EXPECT_EQ(table.Add(5, MessagePort(1)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(table.Add(6, EventPort(0, 0, 0)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table.Add(6, EventPort(0, 0, 2049)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table.Add(6, EventPort(0, 2047, 2)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table.Add(6, EventPort(0, 0xffff'ffff, 2)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table.size(), 1u);
  EXPECT_OK(table.Remove(5));
  EXPECT_EQ(table.Remove(5).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Post(5), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(ConnectionTableTest, HoldsSoManyAndNoMore) {
  constexpr uint32_t kStep = 0x0010'0001;  // any order, both ends
  for (uint32_t n = 0; n < ConnectionTable::kMaxConnections; ++n) ASSERT_OK(table.Add(n * kStep, MessagePort(n % 2)));
  EXPECT_EQ(table.Add(1, MessagePort(0)).code(), absl::StatusCode::kResourceExhausted);
  for (uint32_t n = 0; n < ConnectionTable::kMaxConnections; ++n) {
    EXPECT_EQ(Post(n * kStep), HvStatus::kSuccess);
    SynicForTest& target = synics.vps[n % 2];
    EXPECT_EQ(target.guest(kSint).TakeMessage()->message.header.origination_id, 100 + n % 2);
  }
  for (uint32_t n = 0; n < ConnectionTable::kMaxConnections; ++n) ASSERT_OK(table.Remove(n * kStep));
}

TEST_F(ConnectionTableTest, ConnectionsComeAndGoWhileOthersPost) {
  ASSERT_OK(table.Add(1, MessagePort(0)));
  std::atomic<bool> stop{false};
  std::vector<std::thread> vps;
  for (uint32_t vp = 0; vp < 2; ++vp) {
    vps.emplace_back([&, vp] {
      const uint8_t payload[8] = {};
      while (!stop) {
        const HvStatus status = table.PostMessage(Poster::OfVp(VpIndex(vp)), 2, kVmBus, payload);
        EXPECT_TRUE(status == HvStatus::kInvalidConnectionId || status == HvStatus::kSuccess ||
                    status == HvStatus::kInsufficientBuffers)
            << static_cast<int>(status);
        EXPECT_NE(table.PostMessage(Poster::OfVp(VpIndex(vp)), 1, kVmBus, payload), HvStatus::kInvalidConnectionId);
        std::this_thread::yield();
      }
    });
  }
  for (int n = 0; n < 500; ++n) {
    EXPECT_OK(table.Add(2, MessagePort(1)));
    EXPECT_OK(table.Remove(2));
    // Nothing more is sent by it.
    const uint64_t before = synics.vps[1]->stats().messages.busy + synics.vps[1]->stats().refused_full;
    std::this_thread::yield();
    EXPECT_EQ(synics.vps[1]->stats().messages.busy + synics.vps[1]->stats().refused_full, before);
  }
  stop = true;
  for (std::thread& vp : vps) vp.join();
}

}  // namespace
}  // namespace vmm
