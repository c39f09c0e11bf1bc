#include <array>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "devices/io_device.h"
#include "devices/fake_machine_control.h"
#include "devices/machine_control.h"
#include "devices/platform/test_machine/end_ports.h"
#include "devices/platform/test_machine/fw_cfg.h"
#include "devices/platform/test_machine/test_machine_host.h"
#include "devices/platform/test_machine/test_machine_layout.h"
#include "devices/platform/test_machine/test_registers.h"

namespace vmm {
namespace {

class RecordingHost final : public TestMachineHost {
 public:
  void SetInterruptLevel(uint32_t line, bool high) noexcept override { levels.emplace_back(line, high); }
  void DropMapping(Gpa guest_gpa) noexcept override { dropped.push_back(guest_gpa); }
  std::vector<std::pair<uint32_t, bool>> levels;
  std::vector<Gpa> dropped;
};

template <typename T>
void Out(IoDevice& device, uint64_t offset, T value) {
  device.Write(offset, std::as_bytes(std::span(&value, 1)));
}
template <typename T>
T In(IoDevice& device, uint64_t offset) {
  T value = static_cast<T>(~T{0});
  device.Read(offset, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

uint64_t Ask(FwCfg& fw_cfg, uint16_t key, int bytes) {
  Out<uint16_t>(fw_cfg, 0, key);
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= uint64_t{In<uint8_t>(fw_cfg, 1)} << (8 * i);
  return value;
}

TEST(FwCfgTest, KnownKeysGiveTheirValuesAndThenZeros) {
  FwCfg fw_cfg({.ram_bytes = 0x1'2345'6000, .processors = 0x0304});
  EXPECT_EQ(Ask(fw_cfg, kFwCfgSignature, 8), 0x554d'4551u);
  EXPECT_EQ(Ask(fw_cfg, kFwCfgRamBytes, 8), 0x1'2345'6000u);
  EXPECT_EQ(In<uint8_t>(fw_cfg, 1), 0);
  EXPECT_EQ(Ask(fw_cfg, kFwCfgProcessors, 8), 0x0304u);
  EXPECT_EQ(Ask(fw_cfg, kFwCfgMaxProcessors, 8), 0x0304u);
  for (const uint16_t key : {1, 2, 4, 0x19, 0x8000, 0xffff}) EXPECT_EQ(Ask(fw_cfg, key, 8), 0u) << key;
}

TEST(FwCfgTest, OnlyAWordSelectsAndOnlyBytesAreRead) {
  FwCfg fw_cfg({.ram_bytes = 0x1122, .processors = 3});
  EXPECT_EQ(Ask(fw_cfg, kFwCfgRamBytes, 1), 0x22u);
  Out<uint8_t>(fw_cfg, 0, kFwCfgProcessors);
  Out<uint8_t>(fw_cfg, 1, 0xff);
  EXPECT_EQ(In<uint16_t>(fw_cfg, 0), 0);
  EXPECT_EQ(In<uint8_t>(fw_cfg, 0), 0);
  EXPECT_EQ(In<uint8_t>(fw_cfg, 1), 0x11);
}

TEST(FwCfgTest, TwoProcessorsMayAskAtOnce) {
  FwCfg fw_cfg({.ram_bytes = ~uint64_t{0}, .processors = 1});
  const auto ask = [&fw_cfg] {
    for (int i = 0; i < 200; ++i) static_cast<void>(Ask(fw_cfg, kFwCfgRamBytes, 3));
  };
  std::thread other(ask);
  ask();
  other.join();
  EXPECT_EQ(Ask(fw_cfg, kFwCfgProcessors, 2), 1u);
}

TEST(DebugExitTest, AnyWriteEndsTheMachineWithItsValue) {
  const auto value = [](auto written, uint64_t offset) {
    FakeMachineControl control;
    DebugExit exit(control);
    EXPECT_EQ(In<uint32_t>(exit, 0), 0u);
    EXPECT_EQ(control.reason, std::nullopt);
    Out(exit, offset, written);
    EXPECT_EQ(control.reason, MachineEnd::kDebugExit);
    return control.value;
  };
  EXPECT_EQ(value(uint8_t{0}, 0), 0u);
  EXPECT_EQ(value(uint8_t{0xff}, 3), 0xffu);
  EXPECT_EQ(value(uint16_t{0x1234}, 2), 0x1234u);
  EXPECT_EQ(value(uint32_t{0x8765'4321}, 0), 0x8765'4321u);
}

std::optional<MachineEnd> AfterWriting(const std::string& text) {
  FakeMachineControl control;
  ShutdownPort port(control);
  for (const char c : text) Out(port, 0, c);
  return control.reason;
}

TEST(ShutdownPortTest, OnlyTheWholeWordPowersOff) {
  EXPECT_EQ(AfterWriting("Shutdown"), MachineEnd::kPoweredOff);
  EXPECT_EQ(AfterWriting("xShutShutdown"), MachineEnd::kPoweredOff);
  EXPECT_EQ(AfterWriting("SShutdown"), MachineEnd::kPoweredOff);
  EXPECT_EQ(AfterWriting("Shutdow"), std::nullopt);
  EXPECT_EQ(AfterWriting("shutdown"), std::nullopt);
  EXPECT_EQ(AfterWriting("Shutxdown"), std::nullopt);
  EXPECT_EQ(AfterWriting(std::string("Shut\0down", 9)), std::nullopt);
}

TEST(PlainStorageTest, HoldsWhatWasWrittenAtEveryWidthAndOffset) {
  PlainStorage storage(16);
  EXPECT_EQ(In<uint64_t>(storage, 0), 0u);
  Out<uint32_t>(storage, 0, 0x4433'2211);
  EXPECT_EQ(In<uint8_t>(storage, 2), 0x33);
  Out<uint16_t>(storage, 1, 0xbbaa);
  EXPECT_EQ(In<uint32_t>(storage, 0), 0x44bb'aa11u);
  Out<uint64_t>(storage, 8, 0x0123'4567'89ab'cdef);
  EXPECT_EQ(In<uint64_t>(storage, 8), 0x0123'4567'89ab'cdefu);
  EXPECT_EQ(In<uint32_t>(storage, 4), 0u);
}

TEST(RemapRegisterTest, AWordIsAnAddressOtherWidthsAreNot) {
  RecordingHost host;
  RemapRegister remap(host);
  Out<uint8_t>(remap, 0, 1);
  Out<uint16_t>(remap, 0, 1);
  EXPECT_TRUE(host.dropped.empty());
  Out<uint32_t>(remap, 0, 0xffff'f123);
  EXPECT_EQ(host.dropped, std::vector<Gpa>{Gpa(0xffff'f123)});
  EXPECT_EQ(In<uint32_t>(remap, 0), 0u);
}

TEST(InterruptLinesTest, EachByteIsTheLevelOfItsLine) {
  RecordingHost host;
  InterruptLines lines(host);
  Out<uint8_t>(lines, 23, 1);
  Out<uint8_t>(lines, 23, 0);
  Out<uint8_t>(lines, 0, 0x80);
  Out<uint16_t>(lines, 4, 0x0100);
  const std::vector<std::pair<uint32_t, bool>> want = {{23, true}, {23, false}, {0, true}, {4, false}, {5, true}};
  EXPECT_EQ(host.levels, want);
}

}  // namespace
}  // namespace vmm
