#include "devices/pci/pci_root.h"

#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/status_matchers.h"
#include "devices/pci/config_space.h"
#include "devices/pci/pci_function.h"
#include "devices/pci/pci_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

class FakeFunction final : public PciFunction {
 public:
  explicit FakeFunction(uint32_t bytes) : config({.vendor = 0x1234, .device = 0x5678}) { config.SetBar(bytes); }
  void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept override { config.Read(offset, data); }
  void WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override { config.Write(offset, data); }
  uint32_t bar_bytes() const noexcept override { return config.bar_bytes(); }
  std::optional<Gpa> bar() const noexcept override { return config.bar(); }
  void PlaceBar(uint32_t address) noexcept override { config.SetBarAddress(address); }
  void ReadBar(uint32_t offset, std::span<std::byte> data) noexcept override { data[0] = static_cast<std::byte>(offset); }
  void WriteBar(uint32_t offset, std::span<const std::byte>) noexcept override { written.push_back(offset); }
  PciConfigSpace config;
  std::vector<uint32_t> written;
};

uint32_t Read32(IoDevice& device, uint64_t offset) {
  uint32_t value = 0xffff'ffff;
  device.Read(offset, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}
void Write32(IoDevice& device, uint64_t offset, uint32_t value) { device.Write(offset, std::as_bytes(std::span(&value, 1))); }

constexpr Gpa kWindow{0xc000'0000};
constexpr uint32_t kWindowBytes = 0x10'0000;
constexpr uint64_t Ecam(uint32_t slot, uint32_t function, uint32_t offset) { return slot << 15 | function << 12 | offset; }

TEST(PciRootTest, SlotsAnswerByEcamAndByThePortsAndEmptyOnesAreOnes) {
  PciRoot root(kWindow, kWindowBytes);
  FakeFunction function(0x1000);
  ASSERT_OK_AND_ASSIGN(const uint32_t slot, root.Add(function));
  EXPECT_EQ(slot, 1u);
  EXPECT_EQ(Read32(root.ecam(), Ecam(0, 0, pci::kClassCode - 1)), 0x0600'0000u);
  EXPECT_EQ(Read32(root.ecam(), Ecam(1, 0, 0)), 0x5678'1234u);
  EXPECT_EQ(Read32(root.ecam(), Ecam(1, 1, 0)), 0xffff'ffffu);
  EXPECT_EQ(Read32(root.ecam(), Ecam(2, 0, 0)), 0xffff'ffffu);
  EXPECT_EQ(Read32(root.ecam(), Ecam(1, 0, 0x100)), 0xffff'ffffu);

  Write32(root.config_ports(), 0, pci::kConfigEnable | 1 << 11);
  EXPECT_EQ(Read32(root.config_ports(), 0), pci::kConfigEnable | 1 << 11);
  EXPECT_EQ(Read32(root.config_ports(), 4), 0x5678'1234u);
  uint16_t device = 0;
  root.config_ports().Read(6, std::as_writable_bytes(std::span(&device, 1)));
  EXPECT_EQ(device, 0x5678);
  Write32(root.config_ports(), 0, 1 << 11);  // not enabled
  EXPECT_EQ(Read32(root.config_ports(), 4), 0xffff'ffffu);
  Write32(root.config_ports(), 0, pci::kConfigEnable | 1 << 16 | 1 << 11);  // bus 1
  EXPECT_EQ(Read32(root.config_ports(), 4), 0xffff'ffffu);
  const uint8_t byte = 0;
  root.config_ports().Write(0, std::as_bytes(std::span(&byte, 1)));  // not the whole address
  EXPECT_EQ(Read32(root.config_ports(), 0), pci::kConfigEnable | 1 << 16 | 1 << 11);
}

TEST(PciRootTest, BarsAreAssignedAlignedAndAnswerWhereTheGuestPutsThem) {
  PciRoot root(kWindow, kWindowBytes);
  FakeFunction small(0x1000), large(0x8000);
  ASSERT_OK(root.Add(small));
  ASSERT_OK(root.Add(large));
  EXPECT_EQ(Read32(root.ecam(), Ecam(1, 0, pci::kBar0)), 0xc000'0000u);
  EXPECT_EQ(Read32(root.ecam(), Ecam(2, 0, pci::kBar0)), 0xc000'8000u);
  EXPECT_EQ(Read32(root.window(), 0x8004), 0xffff'ffffu);  // decoding is off
  Write32(root.ecam(), Ecam(2, 0, pci::kCommand), pci::kCommandMemory);
  EXPECT_EQ(Read32(root.window(), 0x8004), 0xffff'ff04u);
  Write32(root.window(), 0xfffc, 0);
  Write32(root.window(), 0xfffe, 0);  // half outside
  EXPECT_EQ(large.written, std::vector<uint32_t>({0x7ffc}));
  Write32(root.ecam(), Ecam(2, 0, pci::kBar0), 0xc008'0000);
  EXPECT_EQ(Read32(root.window(), 0x8004), 0xffff'ffffu);
  EXPECT_EQ(Read32(root.window(), 0x8'0010), 0xffff'ff10u);
}

TEST(PciRootTest, SlotsAndTheWindowAreBounded) {
  PciRoot root(kWindow, kWindowBytes);
  std::vector<std::unique_ptr<FakeFunction>> functions;
  for (int i = 0; i < 31; ++i) {
    functions.push_back(std::make_unique<FakeFunction>(0x1000));
    ASSERT_OK(root.Add(*functions.back()));
  }
  FakeFunction more(0x1000);
  EXPECT_THAT(root.Add(more), StatusIs(absl::StatusCode::kResourceExhausted, "31 slots"));
  PciRoot other(kWindow, kWindowBytes);
  FakeFunction huge(2 * kWindowBytes);
  EXPECT_THAT(other.Add(huge), StatusIs(absl::StatusCode::kResourceExhausted, "no room"));
}

}  // namespace
}  // namespace vmm
