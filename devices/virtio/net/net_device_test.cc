#include "devices/virtio/net/net_device.h"

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/net/fake_net_wire.h"
#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

namespace vn = virtio_net;
using Segment = FakeGuestDriver::Segment;

constexpr uint64_t kWireFeatures = vn::kFeatureCsum | vn::kGuestOffloads | vn::kFeatureHostTso4 | vn::kFeatureHostTso6 | vn::kFeatureHostEcn |
                                   vn::kFeatureHostUfo | vn::kFeatureHostUso;
constexpr uint64_t kSecond = 1'000'000'000;

class NetDeviceTest : public testing::Test, public BackendHost {
 protected:
  static constexpr uint16_t kQueueSize = 16;
  static constexpr uint16_t kPairs = 2;
  static constexpr uint16_t kQueues = 2 * kPairs + 1;

  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    for (uint16_t i = 0; i < kQueues; ++i) drivers_.emplace_back(ram_, kQueueSize, FakeGuestRam::kBase + 0x2'0000 * uint64_t{i});
    Make({.mac = {2, 0, 0, 0, 0, 1}, .mtu = 1400, .pairs = kPairs}, ~uint64_t{0});
  }
  void Make(const NetOptions& options, uint64_t accepted) {
    device_ = std::make_unique<NetDevice>(wire_, options, [this] { return now_; }, [this](uint64_t ns) { sleep_ = ns; });
    device_->OnHost(*this);
    device_->OnFeatures(device_->features() & accepted);
    for (uint16_t i = 0; i < kQueues; ++i) Start(i);
  }
  void Start(uint16_t index, uint16_t base = 0) {
    queues_[index].Start(drivers_[index].Rings(memory_), base, virtio::kFeatureIndirectDesc, memory_, &call_);
  }
  void ConfigChanged() override {}
  void Wake(uint16_t index) override {
    while (queues_[index].running() && device_->Process(index, queues_[index])) ++turns_;
  }
  Gpa Data(uint16_t index, uint64_t offset = 0) const { return drivers_[index].data() + offset; }

  // Sends header and frame in two segments.
  void Send(const vn::Header& header, const std::string& frame, uint16_t index = 1) {
    ram_.Word<vn::Header>(Data(index)) = header;
    ram_.Put(Data(index, 0x100), frame);
    drivers_[index].Offer({{Data(index), sizeof(header)}, {Data(index, 0x100), static_cast<uint32_t>(frame.size())}});
    Wake(index);
  }
  void GiveBuffer(uint16_t index, uint64_t offset, uint32_t bytes) { drivers_[index].Offer({{Data(index, offset), bytes, true}}); }
  uint16_t NumBuffers(uint16_t index, uint64_t offset) { return ram_.Word<uint16_t>(Data(index, offset + 10)); }

  // The answer to a command; 0xee: none was written.
  uint8_t Command(uint8_t type, uint8_t number, const std::string& data, uint16_t index = 2 * kPairs) {
    ram_.Put(Data(index), std::string{static_cast<char>(type), static_cast<char>(number)} + data);
    ram_.Word<uint8_t>(Data(index, 0x1000)) = 0xee;
    drivers_[index].Offer({{Data(index), 2}, {Data(index, 2), static_cast<uint32_t>(data.size())}, {Data(index, 0x1000), 1, true}});
    Wake(index);
    EXPECT_TRUE(drivers_[index].Take().has_value());
    return ram_.Word<uint8_t>(Data(index, 0x1000));
  }
  static std::string Bytes(auto value) { return std::string(reinterpret_cast<const char*>(&value), sizeof(value)); }

  FakeGuestRam ram_;
  std::vector<FakeGuestDriver> drivers_;
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  FakeNetWire wire_{kPairs, kWireFeatures};
  std::unique_ptr<NetDevice> device_;
  std::array<BackendQueue, kQueues> queues_;
  uint64_t now_ = kSecond;
  uint64_t sleep_ = 0;
  int turns_ = 0;
};

// ---- From the guest

TEST_F(NetDeviceTest, APacketGoesOutWithItsHeader) {
  const vn::Header header{.flags = vn::kFlagNeedsCsum, .gso_type = vn::kGsoTcpV4, .hdr_len = 54, .gso_size = 1000, .csum_start = 34, .csum_offset = 16};
  const std::string frame(3000, 'f');
  Send(header, frame);
  ASSERT_EQ(wire_.sent.size(), 1u);
  EXPECT_EQ(wire_.sent[0].pair, 0);
  EXPECT_EQ(std::memcmp(&wire_.sent[0].header, &header, sizeof(header)), 0);
  EXPECT_EQ(wire_.sent[0].frame, frame);
  EXPECT_EQ(drivers_[1].Take(), (virtio::UsedElement{0, 0}));
  Send({}, "a frame of another pair", 3);
  EXPECT_EQ(wire_.sent.back().pair, 1);
  EXPECT_EQ(device_->stats().sent, 2u);
}

TEST_F(NetDeviceTest, AHeaderInPiecesIsOne) {
  const vn::Header header{.flags = vn::kFlagNeedsCsum, .csum_start = 14, .csum_offset = 2};
  const std::string frame = "piece by piece, and still one";
  ram_.Put(Data(1), Bytes(header) + frame);
  drivers_[1].Offer({{Data(1), 1}, {Data(1, 1), 4}, {Data(1, 5), 10}, {Data(1, 15), static_cast<uint32_t>(frame.size()) - 3}});
  Wake(1);
  ASSERT_EQ(wire_.sent.size(), 1u);
  EXPECT_EQ(wire_.sent[0].frame, frame);
  EXPECT_EQ(wire_.sent[0].header.csum_start, 14);
}

TEST_F(NetDeviceTest, WhatADriverHasNoBusinessToSetIsNotPassedOn) {
  Send({.flags = 0xfe, .gso_type = 0, .hdr_len = 7, .gso_size = 8, .csum_start = 9, .csum_offset = 10, .num_buffers = 11}, "fourteen bytes.");
  ASSERT_EQ(wire_.sent.size(), 1u);
  EXPECT_EQ(std::memcmp(&wire_.sent[0].header, std::array<char, 12>{}.data(), 12), 0);
}

TEST_F(NetDeviceTest, PacketsThatMakeNoSenseAreDroppedAndGivenBack) {
  Send({}, "13 bytes long");
  Send({.gso_type = 2}, std::string(100, 'x'));
  // No header, and one that is cut.
  drivers_[1].Offer({{Data(1), 0}});
  drivers_[1].Offer({{Data(1), 11}});
  Wake(1);
  // Larger than any frame, in segments of 60000 bytes that overlap.
  drivers_[1].Offer({{Data(1), 60'000}, {Data(1), 60'000}});
  Wake(1);
  EXPECT_TRUE(wire_.sent.empty());
  EXPECT_EQ(device_->stats().bad_headers, 5u);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(drivers_[1].Take().has_value());
}

TEST_F(NetDeviceTest, APacketThatDoesNotGoWaitsAndIsSentOnce) {
  wire_.result = NetWire::SendResult::kBusy;
  Send({}, "wait for the wire");
  EXPECT_TRUE(wire_.wants_output[0]);
  EXPECT_FALSE(drivers_[1].Take().has_value());
  wire_.result = NetWire::SendResult::kSent;
  device_->OnWritable(0);
  ASSERT_EQ(wire_.sent.size(), 1u);
  EXPECT_EQ(wire_.sent[0].frame, "wait for the wire");
  EXPECT_TRUE(drivers_[1].Take().has_value());
  EXPECT_FALSE(wire_.wants_output[0]);
}

TEST_F(NetDeviceTest, APacketThatTheHostRefusesIsLost) {
  wire_.result = NetWire::SendResult::kRefused;
  Send({}, "into the void it goes");
  EXPECT_TRUE(drivers_[1].Take().has_value());
  EXPECT_EQ(device_->stats().refused, 1u);
}

TEST(NetHeaderTest, IsSendableWhereTheDriverAcceptedItAndItLiesInThePacket) {
  constexpr size_t kFrame = 100;
  const auto sendable = [](const vn::Header& header, uint64_t features) { return IsSendable(header, features, kFrame); };
  EXPECT_TRUE(sendable({}, 0));
  EXPECT_FALSE(sendable({.flags = vn::kFlagNeedsCsum, .csum_start = 34, .csum_offset = 16}, 0));
  EXPECT_TRUE(sendable({.flags = vn::kFlagNeedsCsum, .csum_start = 34, .csum_offset = 16}, vn::kFeatureCsum));
  EXPECT_TRUE(sendable({.flags = vn::kFlagNeedsCsum, .csum_start = 82, .csum_offset = 16}, vn::kFeatureCsum));
  EXPECT_FALSE(sendable({.flags = vn::kFlagNeedsCsum, .csum_start = 83, .csum_offset = 16}, vn::kFeatureCsum));
  EXPECT_FALSE(sendable({.flags = vn::kFlagNeedsCsum, .csum_start = 0xffff, .csum_offset = 0xffff}, vn::kFeatureCsum));
  const std::pair<uint8_t, uint64_t> kinds[] = {{vn::kGsoTcpV4, vn::kFeatureHostTso4},
                                                {vn::kGsoTcpV6, vn::kFeatureHostTso6},
                                                {vn::kGsoUdp, vn::kFeatureHostUfo},
                                                {vn::kGsoUdpL4, vn::kFeatureHostUso}};
  for (const auto& [type, feature] : kinds) {
    vn::Header header{.flags = vn::kFlagNeedsCsum, .gso_type = type, .hdr_len = 54, .gso_size = 40, .csum_start = 34, .csum_offset = 16};
    const uint64_t all = vn::kFeatureCsum | feature;
    EXPECT_TRUE(sendable(header, all)) << int{type};
    EXPECT_FALSE(sendable(header, ~feature)) << int{type};
    header.gso_type |= vn::kGsoEcn;
    EXPECT_FALSE(sendable(header, all)) << int{type};
    EXPECT_TRUE(sendable(header, all | vn::kFeatureHostEcn)) << int{type};
    header.gso_type = type;
    header.gso_size = 0;
    EXPECT_FALSE(sendable(header, all)) << int{type};
    header.gso_size = 40;
    header.hdr_len = kFrame + 1;
    EXPECT_FALSE(sendable(header, all)) << int{type};
    header.hdr_len = 54;
    header.flags = 0;  // a segment's checksum is always left to the device
    EXPECT_FALSE(sendable(header, all)) << int{type};
  }
  for (const int type : {2, 6, 0x40, 0x80, 0x7f, 0xff}) {
    EXPECT_FALSE(sendable({.flags = vn::kFlagNeedsCsum, .gso_type = static_cast<uint8_t>(type), .gso_size = 1}, ~uint64_t{0})) << type;
  }
}

// ---- To the guest

TEST_F(NetDeviceTest, APacketIsTakenWhenTheGuestHasRoom) {
  wire_.incoming[0] = {"a packet", "another one"};
  Wake(0);
  EXPECT_FALSE(wire_.wants_input[0]);
  EXPECT_EQ(wire_.incoming[0].size(), 2u);
  for (uint64_t i = 0; i < kQueueSize; ++i) GiveBuffer(0, 0x1000 * i, 0x1000);
  Wake(0);
  EXPECT_TRUE(wire_.wants_input[0]);
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{0, 12 + 8}));
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{1, 12 + 11}));
  EXPECT_EQ(drivers_[0].Take(), std::nullopt);
  EXPECT_EQ(ram_.Get(Data(0, 12), 8), "a packet");
  EXPECT_EQ(ram_.Get(Data(0), 10), "hhhhhhhhhh");
  EXPECT_EQ(NumBuffers(0, 0), 1);
  EXPECT_EQ(NumBuffers(0, 0x1000), 1);
}

TEST_F(NetDeviceTest, ALargePacketIsSpreadOverBuffersInOrder) {
  std::string frame(5000, 0);
  for (size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<char>(i % 251);
  wire_.incoming[0] = {frame, "small"};
  for (int i = 0; i < 12; ++i) GiveBuffer(0, 0x800 * static_cast<uint64_t>(i), 0x600);
  Wake(0);
  EXPECT_EQ(NumBuffers(0, 0), 4);
  std::string got;
  for (uint32_t i = 0; i < 4; ++i) {
    const auto used = drivers_[0].Take();
    ASSERT_TRUE(used.has_value());
    EXPECT_EQ(used->id, i);
    got += ram_.Get(Data(0, 0x800 * uint64_t{i}), used->bytes);
  }
  EXPECT_EQ(got.substr(12), frame);
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{4, 12 + 5}));
  EXPECT_EQ(NumBuffers(0, 0x800 * 4), 1);
}

TEST_F(NetDeviceTest, WithLittleRoomItWaitsForMoreAndThenLosesWhatDoesNotFit) {
  wire_.incoming[0] = {std::string(20'000, 'x'), "fits"};
  for (int i = 0; i < 7; ++i) GiveBuffer(0, 0x800 * static_cast<uint64_t>(i), 0x600);
  Wake(0);
  EXPECT_EQ(wire_.incoming[0].size(), 2u);
  EXPECT_FALSE(wire_.wants_input[0]);
  GiveBuffer(0, 0x800 * 7, 0x600);  // half of the ring: the driver may give no more
  Wake(0);
  EXPECT_EQ(device_->stats().too_large, 1u);
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{0, 12 + 4}));
  EXPECT_EQ(drivers_[0].Take(), std::nullopt);
  EXPECT_EQ(ram_.Get(Data(0, 12), 4), "fits");
}

TEST_F(NetDeviceTest, WithoutMergingAPacketHasOneBuffer) {
  Make({.pairs = kPairs}, ~vn::kFeatureMrgRxbuf);
  wire_.incoming[0] = {"one", std::string(200, 'y'), "two"};
  for (int i = 0; i < 3; ++i) drivers_[0].Offer({{Data(0, 0x800 * static_cast<uint64_t>(i)), 12, true}, {Data(0, 0x800 * static_cast<uint64_t>(i) + 12), 100, true}});
  Wake(0);
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{0, 15}));
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{2, 15}));
  EXPECT_EQ(drivers_[0].Take(), std::nullopt);
  EXPECT_EQ(device_->stats().too_large, 1u);
  EXPECT_EQ(ram_.Get(Data(0, 0x800 + 12), 3), "two");
  EXPECT_EQ(NumBuffers(0, 0x800), 1);
}

TEST_F(NetDeviceTest, UselessBuffersAreUsedUpAndHoldNothingUp) {
  for (int i = 0; i < 4; ++i) drivers_[0].Offer({{Data(0), 8}});              // none of it writable
  for (int i = 0; i < 4; ++i) GiveBuffer(0, 0x1000 + 0x10 * static_cast<uint64_t>(i), 5);  // not even a header's worth
  wire_.incoming[0] = {"to", "hello"};
  Wake(0);
  // 20 bytes of room: the first fits, over all eight, and the second waits for room.
  for (uint32_t i = 0; i < 7; ++i) EXPECT_TRUE(drivers_[0].Take().has_value()) << i;
  EXPECT_EQ(drivers_[0].Take(), std::nullopt);
  EXPECT_EQ(wire_.incoming[0].size(), 1u);
  for (uint64_t i = 0; i < 8; ++i) GiveBuffer(0, 0x2000 + 0x100 * i, 0x100);
  Wake(0);
  EXPECT_TRUE(wire_.incoming[0].empty());
}

TEST_F(NetDeviceTest, AStoppedQueueGivesItsBuffersBack) {
  for (uint64_t i = 0; i < kQueueSize; ++i) GiveBuffer(0, 0x1000 * i, 0x1000);
  wire_.incoming[0] = {"first"};
  Wake(0);
  ASSERT_TRUE(drivers_[0].Take().has_value());
  device_->OnQueueStopped(0);
  EXPECT_EQ(queues_[0].Stop(), 1);  // the others are taken again by whoever starts next
  EXPECT_FALSE(wire_.wants_input[0]);
  Start(0, 1);
  wire_.incoming[0] = {"second"};
  Wake(0);
  EXPECT_EQ(drivers_[0].Take(), (virtio::UsedElement{1, 12 + 6}));
}

TEST_F(NetDeviceTest, ABrokenQueueReceivesNothingMore) {
  GiveBuffer(0, 0, 0x1000);
  drivers_[0].Make(kQueueSize);
  wire_.incoming[0] = {"x"};
  Wake(0);
  EXPECT_EQ(queues_[0].fault(), BackendQueue::Fault::kHead);
  EXPECT_FALSE(wire_.wants_input[0]);
  EXPECT_EQ(drivers_[0].Take(), std::nullopt);
}

// ---- Commands, queue pairs

TEST_F(NetDeviceTest, PairsAreUsedWhenTheDriverAsks) {
  for (uint64_t i = 0; i < 8; ++i) GiveBuffer(2, 0x1000 * i, 0x1000);
  wire_.incoming[1] = {"for the second pair"};
  Wake(2);
  EXPECT_EQ(drivers_[2].Take(), std::nullopt);
  for (const uint16_t pairs : {0, 3, 0xffff}) EXPECT_EQ(Command(vn::kClassMq, vn::kMqVqPairsSet, Bytes(pairs)), vn::kAckError) << pairs;
  EXPECT_EQ(Command(vn::kClassMq, vn::kMqVqPairsSet, "\2"), vn::kAckError);
  EXPECT_EQ(Command(vn::kClassMq, 1, Bytes(uint16_t{2})), vn::kAckError);
  EXPECT_FALSE(wire_.is_active[1]);
  EXPECT_EQ(Command(vn::kClassMq, vn::kMqVqPairsSet, Bytes(uint16_t{2})), vn::kAckOk);
  EXPECT_TRUE(wire_.is_active[1]);
  EXPECT_TRUE(drivers_[2].Take().has_value());
  EXPECT_EQ(Command(vn::kClassMq, vn::kMqVqPairsSet, Bytes(uint16_t{1})), vn::kAckOk);
  EXPECT_FALSE(wire_.is_active[1]);
}

TEST_F(NetDeviceTest, WhoStartsAfterAKillFindsThePairsInUseAndTheNextDriverDoesNot) {
  ASSERT_EQ(Command(vn::kClassMq, vn::kMqVqPairsSet, Bytes(uint16_t{2})), vn::kAckOk);
  Make({.pairs = kPairs}, ~uint64_t{0});
  EXPECT_EQ(device_->active_pairs(), 2);
  device_->OnQueueStopped(2);
  EXPECT_FALSE(wire_.is_active[1]);
  device_->OnFeatures(device_->features());
  EXPECT_EQ(device_->active_pairs(), 1);
}

TEST_F(NetDeviceTest, WithoutAControlQueueAPairThatRunsIsUsed) {
  Make({.pairs = kPairs}, ~(vn::kFeatureCtrlVq | vn::kFeatureMq));
  Wake(2);
  EXPECT_TRUE(wire_.is_active[1]);
  device_->OnQueueStopped(2);
  EXPECT_FALSE(wire_.is_active[1]);
}

TEST_F(NetDeviceTest, WithoutMultiqueueTheControlQueueIsTheThird) {
  Make({.pairs = kPairs}, ~vn::kFeatureMq);
  EXPECT_EQ(Command(vn::kClassRx, vn::kRxPromisc, "\1", 2), vn::kAckOk);
  EXPECT_EQ(Command(vn::kClassMq, vn::kMqVqPairsSet, Bytes(uint16_t{1}), 2), vn::kAckError);
}

TEST_F(NetDeviceTest, CommandsAreAnsweredAsTheSpecificationSays) {
  EXPECT_EQ(Command(vn::kClassRx, vn::kRxPromisc, "\1"), vn::kAckOk);
  EXPECT_EQ(Command(vn::kClassRx, vn::kRxAllMulti, std::string(1, 0)), vn::kAckOk);
  EXPECT_EQ(Command(vn::kClassRx, 2, "\1"), vn::kAckError);
  EXPECT_EQ(Command(vn::kClassRx, vn::kRxPromisc, "\1\1"), vn::kAckError);
  EXPECT_EQ(Command(vn::kClassMac, vn::kMacAddrSet, "\2abcde"), vn::kAckOk);
  vn::Config config{};
  std::memcpy(&config, device_->config().data(), sizeof(config));
  EXPECT_EQ(std::memcmp(config.mac, "\2abcde", 6), 0);
  EXPECT_EQ(config.status, vn::kStatusLinkUp);
  EXPECT_EQ(config.max_virtqueue_pairs, kPairs);
  EXPECT_EQ(config.mtu, 1400);
  EXPECT_EQ(Command(vn::kClassMac, vn::kMacAddrSet, "short"), vn::kAckError);
  EXPECT_EQ(Command(vn::kClassMac, vn::kMacTableSet, Bytes(uint32_t{1}) + "abcdef" + Bytes(uint32_t{0})), vn::kAckOk);
  EXPECT_EQ(Command(vn::kClassMac, vn::kMacTableSet, Bytes(uint32_t{1}) + "abcdef"), vn::kAckError);
  EXPECT_EQ(Command(vn::kClassMac, vn::kMacTableSet, Bytes(uint32_t{0xffff'ffff}) + Bytes(uint32_t{0})), vn::kAckError);
  EXPECT_EQ(Command(vn::kClassMac, vn::kMacTableSet, Bytes(uint32_t{0}) + Bytes(uint32_t{0}) + "x"), vn::kAckError);
  EXPECT_EQ(wire_.offloads, vn::kGuestOffloads);
  EXPECT_EQ(Command(vn::kClassGuestOffloads, vn::kGuestOffloadsSet, Bytes(vn::kFeatureGuestCsum)), vn::kAckOk);
  EXPECT_EQ(wire_.offloads, vn::kFeatureGuestCsum);
  EXPECT_EQ(Command(vn::kClassGuestOffloads, vn::kGuestOffloadsSet, Bytes(vn::kFeatureMac)), vn::kAckError);
  EXPECT_EQ(wire_.offloads, vn::kFeatureGuestCsum);
  EXPECT_EQ(Command(9, 0, ""), vn::kAckError);
  // Half a command; one without a place for the answer; one that is too long.
  const uint16_t control = 2 * kPairs;
  drivers_[control].Offer({{Data(control), 1}, {Data(control, 0x1000), 1, true}});
  drivers_[control].Offer({{Data(control), 6}});
  drivers_[control].Offer({{Data(control), 60'000}, {Data(control, 0x1000), 1, true}});
  Wake(control);
  for (const uint32_t bytes : {1u, 0u, 1u}) {
    const auto used = drivers_[control].Take();
    ASSERT_TRUE(used.has_value());
    EXPECT_EQ(used->bytes, bytes);
    EXPECT_EQ(ram_.Word<uint8_t>(Data(control, 0x1000)), vn::kAckError);
  }
}

// ---- Limits

TEST_F(NetDeviceTest, PacketsWaitForTheirRateInEachDirection) {
  Make({.pairs = kPairs, .packets_per_second = 20}, ~uint64_t{0});  // a burst of two
  for (int i = 0; i < 3; ++i) Send({}, "frame number " + std::to_string(i));
  EXPECT_EQ(wire_.sent.size(), 2u);
  EXPECT_NEAR(static_cast<double>(sleep_), kSecond / 20.0, 10);
  EXPECT_FALSE(wire_.wants_output[0]);
  wire_.incoming[0] = {"one", "two", "three"};
  for (uint64_t i = 0; i < kQueueSize; ++i) GiveBuffer(0, 0x1000 * i, 0x1000);
  Wake(0);
  EXPECT_EQ(wire_.incoming[0].size(), 1u);
  EXPECT_FALSE(wire_.wants_input[0]);
  now_ += sleep_;
  device_->Resume();
  EXPECT_EQ(wire_.sent.size(), 3u);
  EXPECT_EQ(wire_.sent[2].frame, "frame number 2");
  EXPECT_TRUE(wire_.incoming[0].empty());
}

TEST_F(NetDeviceTest, BytesWaitForTheirRateAndAnEarlierWaitIsTold) {
  Make({.pairs = kPairs, .bytes_per_second = 10'000}, ~uint64_t{0});  // a burst of a thousand
  wire_.incoming[0] = {std::string(1500, 'r'), "next"};
  for (uint64_t i = 0; i < kQueueSize; ++i) GiveBuffer(0, 0x1000 * i, 0x1000);
  Wake(0);
  EXPECT_EQ(wire_.incoming[0].size(), 1u);  // paid for afterwards
  EXPECT_NEAR(static_cast<double>(sleep_), 501 / 10'000.0 * kSecond, 1e5);
  sleep_ = 0;
  Send({}, std::string(995, 's'));
  EXPECT_EQ(wire_.sent.size(), 1u);
  Send({}, std::string(14, 's'));
  EXPECT_EQ(wire_.sent.size(), 1u);
  EXPECT_NEAR(static_cast<double>(sleep_), 9 / 10'000.0 * kSecond, 1e5);
  now_ += sleep_;
  device_->Resume();
  EXPECT_EQ(wire_.sent.size(), 2u);
  EXPECT_EQ(wire_.incoming[0].size(), 1u);
  now_ += kSecond;
  device_->Resume();
  EXPECT_TRUE(wire_.incoming[0].empty());
}

TEST_F(NetDeviceTest, AQueueHasItsTurnAndNoMore) {
  turns_ = 0;
  ram_.Put(Data(1), std::string(100, 0));
  for (int i = 0; i < kQueueSize; ++i) drivers_[1].Offer({{Data(1), 100}});
  Wake(1);
  EXPECT_EQ(turns_, 0);
  EXPECT_EQ(wire_.sent.size(), kQueueSize);
}

}  // namespace
}  // namespace vmm
