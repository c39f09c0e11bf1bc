#include "devices/virtio/console/console_device.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

class FakeStream final : public ConsoleStream {
 public:
  ssize_t Write(std::span<const std::byte> data) noexcept override {
    if (gone) return -1;
    const size_t bytes = std::min(data.size(), room);
    output.append(reinterpret_cast<const char*>(data.data()), bytes);
    room -= bytes;
    return static_cast<ssize_t>(bytes);
  }
  ssize_t Read(std::span<std::byte> out) noexcept override {
    if (gone) return -1;
    const size_t bytes = std::min(out.size(), input.size());
    std::memcpy(out.data(), input.data(), bytes);
    input.erase(0, bytes);
    return static_cast<ssize_t>(bytes);
  }
  void WantOutput(bool wanted) noexcept override { wants_output = wanted; }
  void WantInput(bool wanted) noexcept override { wants_input = wanted; }
  std::string input, output;
  size_t room = 1000;
  bool gone = false;
  bool wants_output = false;
  bool wants_input = false;
};

class ConsoleDeviceTest : public testing::Test, public BackendHost {
 protected:
  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    receive_.Start(receive_driver_.Rings(memory_), 0, 0, memory_, &call_);
    transmit_.Start(transmit_driver_.Rings(memory_), 0, 0, memory_, &call_);
    device_.OnHost(*this);
  }
  void ConfigChanged() override { ++config_changes_; }
  void Wake(uint16_t index) override { (void)device_.Process(index, index == ConsoleDevice::kReceive ? receive_ : transmit_); }
  void Send(const std::string& text) {
    ram_.Put(transmit_driver_.data(), text);
    const auto half = static_cast<uint32_t>(text.size() / 2);
    transmit_driver_.Offer({{transmit_driver_.data(), half}, {transmit_driver_.data() + half, static_cast<uint32_t>(text.size()) - half}});
    Wake(ConsoleDevice::kTransmit);
  }
  std::string Taken() {
    const auto used = receive_driver_.Take();
    return used.has_value() ? ram_.Get(receive_driver_.data(), used->bytes) : "nothing";
  }

  FakeGuestRam ram_;
  FakeGuestDriver receive_driver_{ram_, 8};
  FakeGuestDriver transmit_driver_{ram_, 8, FakeGuestRam::kBase + 0x1'0000};
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  BackendQueue receive_, transmit_;
  FakeStream stream_;
  ConsoleDevice device_{stream_, true};
  int config_changes_ = 0;
};

TEST_F(ConsoleDeviceTest, WhatTheGuestWritesComesOutInOrder) {
  Send("hello ");
  Send("world");
  EXPECT_EQ(stream_.output, "hello world");
  EXPECT_TRUE(transmit_driver_.Take().has_value());
  EXPECT_TRUE(transmit_driver_.Take().has_value());
}

TEST_F(ConsoleDeviceTest, OutputThatDoesNotGoWaitsAndIsNeitherLostNorRepeated) {
  stream_.room = 7;
  Send("0123456789");
  EXPECT_EQ(stream_.output, "0123456");
  EXPECT_TRUE(stream_.wants_output);
  EXPECT_FALSE(transmit_driver_.Take().has_value());
  stream_.room = 1;
  device_.OnOutput();
  EXPECT_EQ(stream_.output, "01234567");
  stream_.room = 100;
  device_.OnOutput();
  EXPECT_EQ(stream_.output, "0123456789");
  EXPECT_TRUE(transmit_driver_.Take().has_value());
  EXPECT_FALSE(stream_.wants_output);
}

TEST_F(ConsoleDeviceTest, OutputToNobodyIsDropped) {
  stream_.gone = true;
  Send("into the void");
  EXPECT_TRUE(transmit_driver_.Take().has_value());
}

TEST_F(ConsoleDeviceTest, InputIsTakenWhenTheGuestHasRoom) {
  stream_.input = "typed ahead";
  Wake(ConsoleDevice::kReceive);
  EXPECT_FALSE(stream_.wants_input);
  EXPECT_EQ(stream_.input, "typed ahead");
  receive_driver_.Offer({{receive_driver_.data(), 5, true}});
  Wake(ConsoleDevice::kReceive);
  EXPECT_EQ(Taken(), "typed");
  receive_driver_.Offer({{receive_driver_.data(), 64, true}});
  receive_driver_.Offer({{receive_driver_.data() + 64, 64, true}});
  Wake(ConsoleDevice::kReceive);
  EXPECT_EQ(Taken(), " ahead");
  EXPECT_TRUE(stream_.wants_input);
  EXPECT_EQ(Taken(), "nothing");
  stream_.input = "!";
  device_.OnInput();
  EXPECT_TRUE(receive_driver_.Take().has_value());
}

TEST_F(ConsoleDeviceTest, ABufferWithoutRoomIsGivenBack) {
  stream_.input = "x";
  receive_driver_.Offer({{receive_driver_.data(), 5}});
  Wake(ConsoleDevice::kReceive);
  EXPECT_EQ(Taken(), "");
  EXPECT_EQ(stream_.input, "x");
}

TEST_F(ConsoleDeviceTest, AStoppedQueueForgetsWhatItWasSending) {
  stream_.room = 2;
  Send("abcdef");
  device_.OnQueueStopped(ConsoleDevice::kTransmit);
  EXPECT_FALSE(stream_.wants_output);
  transmit_.Stop();
  stream_.room = 100;
  device_.OnOutput();
  EXPECT_EQ(stream_.output, "ab");
}

TEST_F(ConsoleDeviceTest, ANewSizeIsConfigurationAndToldOnce) {
  device_.SetSize(80, 25);
  device_.SetSize(80, 25);
  EXPECT_EQ(config_changes_, 1);
  ConsoleDevice::Config config{};
  std::memcpy(&config, device_.config().data(), sizeof(config));
  EXPECT_EQ(config.columns, 80);
  EXPECT_EQ(config.rows, 25);
}

TEST_F(ConsoleDeviceTest, AnEmergencyWriteIsOneCharacter) {
  const uint32_t value = 'E';
  EXPECT_TRUE(device_.WriteConfig(8, std::as_bytes(std::span(&value, 1))));
  EXPECT_EQ(stream_.output, "E");
  EXPECT_FALSE(device_.WriteConfig(0, std::as_bytes(std::span(&value, 1))));
}

}  // namespace
}  // namespace vmm
