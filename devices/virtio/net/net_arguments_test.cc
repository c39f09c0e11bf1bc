#include "devices/virtio/net/net_arguments.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_device.h"
#include "devices/virtio/net/passt.h"

namespace vmm {
namespace {

absl::StatusOr<NetArguments> Take(std::vector<absl::string_view> arguments, bool jailed = false) { return TakeNetArguments(arguments, jailed); }

TEST(NetArgumentsTest, WhatTheMonitorWritesIsWhatTheDeviceReads) {
  const NetOptions options{.mac = {2, 0xab, 0, 1, 2, 0xff}, .mtu = 9000, .pairs = 3, .bytes_per_second = 1'000'000, .packets_per_second = 77};
  const std::vector<std::string> text = NetDeviceArguments(options, /*stream=*/true);
  ASSERT_OK_AND_ASSIGN(const NetArguments got, Take({text.begin(), text.end()}, /*jailed=*/true));
  EXPECT_EQ(got.options.mac, options.mac);
  EXPECT_EQ(got.options.mtu, 9000);
  EXPECT_EQ(got.options.pairs, 3);
  EXPECT_EQ(got.options.bytes_per_second, 1'000'000u);
  EXPECT_EQ(got.options.packets_per_second, 77u);
  EXPECT_TRUE(got.stream);
}

TEST(NetArgumentsTest, OthersAreLeft) {
  std::vector<absl::string_view> arguments = {"--socket", "/s", "--tap", "tap0", "--queues=2", "--what"};
  ASSERT_OK_AND_ASSIGN(const NetArguments got, TakeNetArguments(arguments, false));
  EXPECT_EQ(got.tap, "tap0");
  EXPECT_EQ(got.options.pairs, 2);
  EXPECT_EQ(arguments, (std::vector<absl::string_view>{"--socket", "/s", "--what"}));
}

TEST(NetArgumentsTest, DescriptorsAreQueues) {
  ASSERT_OK_AND_ASSIGN(const NetArguments got, Take({"--tap-fd", "5", "--tap-fd=7"}));
  EXPECT_EQ(got.tap_fds, (std::vector<int>{5, 7}));
  EXPECT_EQ(got.options.pairs, 2);
}

TEST(NetArgumentsTest, WhatMakesNoSenseIsRefused) {
  const std::vector<std::vector<absl::string_view>> all = {
      {},
      {"--tap", "a", "--user"},
      {"--tap"},
      {"--tap="},
      {"--tap-fd", "x"},
      {"--tap-fd", "-1"},
      {"--tap-fd=1", "--tap-fd=2", "--queues=3"},
      {"--stream-fd=4", "--stream-fd=5"},
      {"--user", "--queues=2"},
      {"--tap", "a", "--queues=0"},
      {"--tap", "a", "--queues=9"},
      {"--tap", "a", "--mtu=67"},
      {"--tap", "a", "--mtu=65536"},
      {"--tap", "a", "--mac=01:00:00:00:00:00"},
      {"--tap", "a", "--tcp-ports=22"},
      {"--user", "--tcp-ports=all -e /x"},
      {"--user", "--udp-ports=-1"},
  };
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(Take(all[i]).status().code(), absl::StatusCode::kInvalidArgument) << i;
}

TEST(MacAddressTest, OnlyAnInterfacesOwnIsOne) {
  EXPECT_EQ(ParseMacAddress("52:54:00:aB:34:ff"), (MacAddress{0x52, 0x54, 0, 0xab, 0x34, 0xff}));
  EXPECT_EQ(MacAddressText(MacAddress{0x52, 0x54, 0, 0xab, 0x34, 0xff}), "52:54:00:ab:34:ff");
  for (const char* const text : {"", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:5", "52:54:00:12:34:5g", "52-54-00-12-34-56",
                                 "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "+2:00:00:00:00:01", "0x:00:00:00:00:01"}) {
    EXPECT_FALSE(ParseMacAddress(text).has_value()) << text;
  }
  ASSERT_OK_AND_ASSIGN(const MacAddress random, RandomMacAddress());
  EXPECT_EQ(random[0] & 3, 2);
}

TEST(PasstTest, PortsAreOneArgument) {
  for (const char* const good : {"22", "2222:22", "22,80-90:180,~85", "127.0.0.1/8080"}) EXPECT_TRUE(IsPasstPorts(good)) << good;
  for (const char* const bad : {"", "all", "-e", "22 -e", "22;x", "22\n"}) EXPECT_FALSE(IsPasstPorts(bad)) << bad;
  const CompanionOptions companion = PasstCompanion({.mtu = 9000, .tcp_ports = "2222:22"}, OwnedFd());
  EXPECT_EQ(companion.arguments,
            (std::vector<std::string>{"passt", "--foreground", "--stderr", "--quiet", "--fd", "3", "--mtu", "9000", "--tcp-ports", "2222:22",
                                      "--udp-ports", "none"}));
}

}  // namespace
}  // namespace vmm
