#include "devices/pci/config_space.h"

#include <array>
#include <cstring>
#include <optional>
#include <span>

#include <gtest/gtest.h>

#include "devices/pci/pci_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

constexpr PciIdentity kIdentity{.vendor = 0x1af4, .device = 0x1044, .subsystem_vendor = 0x1af4, .subsystem = 0x44, .class_code = 0xff0102, .revision = 1};

void Write32(PciConfigSpace& config, uint32_t offset, uint32_t value) {
  config.Write(offset, std::as_bytes(std::span(&value, 1)));
}

TEST(PciConfigSpaceTest, IdentityIsReadAndNeverWritten) {
  PciConfigSpace config(kIdentity);
  Write32(config, pci::kVendorId, 0);
  Write32(config, pci::kRevision, 0);
  EXPECT_EQ(config.Read32(pci::kVendorId), 0x1044'1af4u);
  EXPECT_EQ(config.Read32(pci::kRevision), 0xff01'0201u);
  EXPECT_EQ(config.Read32(pci::kSubsystemVendorId), 0x0044'1af4u);
}

TEST(PciConfigSpaceTest, TheBarTellsItsSizeAndMoves) {
  PciConfigSpace config(kIdentity);
  config.SetBar(0x8000);
  config.SetBarAddress(0xc001'0000);
  EXPECT_EQ(config.bar(), std::nullopt);  // decoding is off
  Write32(config, pci::kCommand, pci::kCommandMemory);
  EXPECT_EQ(config.bar(), Gpa(0xc001'0000));
  Write32(config, pci::kBar0, 0xffff'ffff);
  EXPECT_EQ(config.Read32(pci::kBar0), 0xffff'8000u);
  Write32(config, pci::kBar0, 0xc123'4567);
  EXPECT_EQ(config.bar(), Gpa(0xc123'0000));
  Write32(config, pci::kBar0 + 4, 0xffff'ffff);
  EXPECT_EQ(config.Read32(pci::kBar0 + 4), 0u);
}

TEST(PciConfigSpaceTest, CapabilitiesAreLinkedAlignedAndWritableWhereTheySay) {
  PciConfigSpace config(kIdentity);
  EXPECT_EQ(config.Read16(pci::kStatus) & pci::kStatusCapabilities, 0);
  const uint8_t first[] = {1, 2, 3};
  const uint8_t second[] = {4, 5};
  const uint8_t writable[] = {0xf0, 0};
  const uint8_t at_first = config.AddCapability(9, first);
  const uint8_t at_second = config.AddCapability(0x11, second, writable);
  EXPECT_EQ(config.Read16(pci::kStatus) & pci::kStatusCapabilities, pci::kStatusCapabilities);
  EXPECT_EQ(config.Read32(pci::kCapabilityPointer) & 0xff, at_first);
  EXPECT_EQ(config.Read16(at_first), 9 | at_second << 8);
  EXPECT_EQ(at_second % 4, 0);
  EXPECT_EQ(config.Read16(at_second), 0x11);
  Write32(config, at_second, 0xffff'ffff);
  EXPECT_EQ(config.Read32(at_second), 0x05f4'0011u);
}

TEST(PciConfigSpaceTest, BeyondTheEndReadsOnesAndNothingIsWritten) {
  PciConfigSpace config(kIdentity);
  std::array<std::byte, 8> data{};
  config.Read(pci::kConfigBytes - 4, data);
  EXPECT_EQ(data[3], std::byte{0});
  EXPECT_EQ(data[4], std::byte{0xff});
  config.Write(pci::kConfigBytes - 4, data);
  config.Read(0xffff'fffc, data);
  EXPECT_EQ(data[0], std::byte{0xff});
}

}  // namespace
}  // namespace vmm
