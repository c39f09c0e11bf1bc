#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <thread>

#include "devices/platform/power/acpi_pm.h"
#include "devices/platform/power/debug_port.h"
#include "devices/platform/power/power_registers.h"
#include "devices/fake_machine_control.h"
#include "devices/platform/power/pvpanic.h"

namespace vmm {
namespace {

void WriteByte(IoDevice& device, uint64_t offset, uint8_t value) {
  const std::byte data[] = {std::byte{value}};
  device.Write(offset, data);
}

TEST(AcpiPmTest, OnlyS5WithSleepEnablePowersOff) {
  for (int value = 0; value < 256; ++value) {
    FakeMachineControl control;
    AcpiPm pm(control);
    WriteByte(pm, 0, static_cast<uint8_t>(value));
    const bool off = (value & 0x20) != 0 && (value >> 2 & 7) == 5;
    EXPECT_EQ(control.reason, off ? std::optional(MachineEnd::kPoweredOff) : std::nullopt) << value;
  }
}

TEST(AcpiPmTest, OnlyTheResetValueResets) {
  for (int value = 0; value < 256; ++value) {
    FakeMachineControl control;
    AcpiPm pm(control);
    WriteByte(pm, kAcpiResetPort - kAcpiSleepControlPort, static_cast<uint8_t>(value));
    EXPECT_EQ(control.reason, value == 1 ? std::optional(MachineEnd::kRebooted) : std::nullopt) << value;
  }
}

TEST(AcpiPmTest, StatusReadsZero) {
  FakeMachineControl control;
  AcpiPm pm(control);
  std::array<std::byte, 1> data{std::byte{0xff}};
  pm.Read(1, data);
  EXPECT_EQ(data[0], std::byte{0});
}

TEST(PvpanicTest, APanicEndsTheMachineACrashKernelDoesNot) {
  FakeMachineControl control;
  Pvpanic pvpanic(control);
  WriteByte(pvpanic, 0, kPvpanicCrashLoaded);
  EXPECT_EQ(control.reason, std::nullopt);
  WriteByte(pvpanic, 0, kPvpanicPanicked);
  EXPECT_EQ(control.reason, MachineEnd::kPanicked);
}

TEST(PvpanicTest, ReadNamesTheSupportedEvents) {
  FakeMachineControl control;
  Pvpanic pvpanic(control);
  std::array<std::byte, 1> data{};
  pvpanic.Read(0, data);
  EXPECT_EQ(data[0], std::byte{3});
}

TEST(DebugPortTest, ALineIsHeldUntilItsEndAndCutAtItsLimit) {
  DebugPort port;
  for (const char c : {'h', 'i'}) WriteByte(port, 0, static_cast<uint8_t>(c));
  EXPECT_EQ(port.pending(), "hi");
  WriteByte(port, 0, '\n');
  EXPECT_EQ(port.pending(), "");
  for (size_t i = 0; i < DebugPort::kMaxLine + 1; ++i) WriteByte(port, 0, 'x');
  EXPECT_EQ(port.pending(), "x");
}

TEST(DebugPortTest, TwoProcessorsMayWriteAtOnce) {
  DebugPort port;
  const auto write = [&port] {
    for (int i = 0; i < 100; ++i) WriteByte(port, 0, 'x');
  };
  std::thread other(write);
  write();
  other.join();
  EXPECT_EQ(port.pending().size(), 200u);
  WriteByte(port, 0, '\n');
}

}  // namespace
}  // namespace vmm
