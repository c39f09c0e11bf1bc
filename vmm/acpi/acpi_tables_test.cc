#include "vmm/acpi/acpi_tables.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>

#include "base/status_matchers.h"
#include "devices/platform/power/power_registers.h"
#include "devices/platform/rtc/cmos_layout.h"
#include "memory/layout.h"
#include "vmm/acpi/acpi_layout.h"

namespace vmm {
namespace {

constexpr Gpa kBase{0xe0000};
using Bytes = std::vector<std::byte>;

uint8_t Sum(const std::byte* bytes, size_t count) {
  uint8_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(bytes[i]));
  return sum;
}

template <typename T>
T As(const Bytes& bytes, size_t offset = 0) {
  T object;
  EXPECT_LE(offset + sizeof(T), bytes.size());
  std::memcpy(&object, bytes.data() + offset, sizeof(T));
  return object;
}

// Reads an image as a kernel does: from the RSDP on, every checksum checked. Keyed by signature, SSDTs by their table id.
class Tables {
 public:
  explicit Tables(const AcpiConfig& config) {
    auto image = BuildAcpi(config, kBase);
    EXPECT_OK(image);
    bytes_ = std::move(image->bytes);
    EXPECT_EQ(image->rsdp, kBase);
    rsdp_ = As<AcpiRsdp>(bytes_);
    EXPECT_EQ(std::string(rsdp_.signature, 8), "RSD PTR ");
    EXPECT_EQ(rsdp_.revision, 2);
    EXPECT_EQ(rsdp_.length, 36u);
    EXPECT_EQ(Sum(bytes_.data(), 20), 0);
    EXPECT_EQ(Sum(bytes_.data(), 36), 0);
    const Bytes xsdt = At(rsdp_.xsdt_address);
    EXPECT_EQ(As<AcpiTableHeader>(xsdt).revision, 1);
    for (size_t at = sizeof(AcpiTableHeader); at < xsdt.size(); at += 8) Add(At(As<uint64_t>(xsdt, at)));
    Add(At(As<AcpiFadt>(table("FACP")).x_dsdt));
  }
  const Bytes& table(const std::string& name) const {
    static const Bytes kNone;
    const auto found = tables_.find(name);
    EXPECT_NE(found, tables_.end()) << name;
    return found == tables_.end() ? kNone : found->second;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, table] : tables_) names.push_back(name);
    return names;
  }
  size_t image_bytes() const { return bytes_.size(); }

 private:
  Bytes At(uint64_t gpa) const {
    EXPECT_EQ(gpa % 16, 0u);
    const uint64_t offset = gpa - kBase.raw();
    const auto header = As<AcpiTableHeader>(bytes_, offset);
    EXPECT_LE(offset + header.length, bytes_.size());
    EXPECT_EQ(Sum(bytes_.data() + offset, header.length), 0) << std::string(header.signature, 4);
    EXPECT_EQ(std::string(header.oem_id, 6), std::string("VMM\0\0\0", 6));
    const auto start = bytes_.begin() + static_cast<ptrdiff_t>(offset);
    return Bytes(start, start + header.length);
  }
  void Add(Bytes table) {
    const auto header = As<AcpiTableHeader>(table);
    std::string name(header.signature, 4);
    if (name == "SSDT") name = std::string(header.oem_table_id, strnlen(header.oem_table_id, 8));
    EXPECT_TRUE(tables_.emplace(name, std::move(table)).second) << name << " twice";
  }
  Bytes bytes_;
  AcpiRsdp rsdp_;
  std::map<std::string, Bytes> tables_;
};

bool Contains(const Bytes& bytes, std::initializer_list<uint8_t> pattern) {
  return std::search(bytes.begin(), bytes.end(), pattern.begin(), pattern.end(),
                     [](std::byte a, uint8_t b) { return static_cast<uint8_t>(a) == b; }) != bytes.end();
}

TEST(AcpiTablesTest, EveryDeviceHasItsTable) {
  EXPECT_THAT(Tables({}).names(), testing::ElementsAre("APIC", "DSDT", "FACP", "MCFG", "VMMCOM1", "VMMCONF", "VMMPANIC",
                                                       "VMMPCIE"));
}

TEST(AcpiTablesTest, ADeviceThatIsOffLeavesNoTable) {
  EXPECT_THAT(Tables({.serial = false, .pvpanic = false, .pci = false}).names(),
              testing::ElementsAre("APIC", "DSDT", "FACP", "VMMCONF"));
  EXPECT_THAT(Tables({.serial = false}).names(),
              testing::ElementsAre("APIC", "DSDT", "FACP", "MCFG", "VMMCONF", "VMMPANIC", "VMMPCIE"));
}

TEST(AcpiTablesTest, AClockHasItsTableAndTheFadtSaysWhereTheCenturyIs) {
  const Tables tables({.rtc = true});
  EXPECT_THAT(tables.names(), testing::Contains("VMMRTC"));
  static_assert(kCmosPort == 0x70 && kCmosPorts == 2);
  EXPECT_TRUE(Contains(tables.table("VMMRTC"), {0x47, 0x01, 0x70, 0x00, 0x70, 0x00, 0x01, 0x02}));
  const auto fadt = As<AcpiFadt>(tables.table("FACP"));
  EXPECT_EQ(fadt.iapc_boot_arch, (1u << 2) | (1u << 4));
  EXPECT_EQ(fadt.century, kCmosCentury);
  EXPECT_EQ(As<AcpiFadt>(Tables({}).table("FACP")).century, 0);
}

TEST(AcpiTablesTest, TheFadtSaysHardwareReducedAndHowToStop) {
  const auto fadt = As<AcpiFadt>(Tables({}).table("FACP"));
  EXPECT_EQ(fadt.header.length, 276u);
  EXPECT_EQ(fadt.header.revision, 6);
  EXPECT_EQ(fadt.flags, (1u << 0) | (1u << 2) | (1u << 4) | (1u << 5) | (1u << 6) | (1u << 10) | (1u << 12) | (1u << 20));
  EXPECT_EQ(fadt.iapc_boot_arch, (1u << 2) | (1u << 4) | (1u << 5));
  EXPECT_EQ(fadt.dsdt, 0u);
  EXPECT_EQ(fadt.x_firmware_ctrl, 0u);
  const struct {
    AcpiGenericAddress address;
    uint16_t port;
  } kRegisters[] = {{fadt.reset_register, kAcpiResetPort},
                    {fadt.sleep_control, kAcpiSleepControlPort},
                    {fadt.sleep_status, kAcpiSleepStatusPort}};
  for (const auto& r : kRegisters) {
    EXPECT_EQ(r.address.space, 1);
    EXPECT_EQ(r.address.bit_width, 8);
    EXPECT_EQ(r.address.bit_offset, 0);
    EXPECT_EQ(r.address.access_size, 1);
    EXPECT_EQ(uint64_t{r.address.address}, r.port);
  }
  EXPECT_EQ(fadt.reset_value, kResetValue);
}

TEST(AcpiTablesTest, TheMadtListsEveryProcessorOnce) {
  for (const uint32_t processors : {1u, 2u, 64u, 255u, 256u, 300u}) {
    const Bytes madt = Tables({.processors = processors}).table("APIC");
    EXPECT_EQ(As<AcpiMadt>(madt).local_apic_address, kLocalApicBase.raw());
    EXPECT_EQ(As<AcpiMadt>(madt).flags, 0u);
    uint32_t next = 0;
    std::vector<int> others;
    for (size_t at = sizeof(AcpiMadt); at < madt.size(); at += static_cast<uint8_t>(madt[at + 1])) {
      ASSERT_GE(static_cast<uint8_t>(madt[at + 1]), 2);
      switch (const int type = static_cast<uint8_t>(madt[at])) {
        case 0: {
          const auto entry = As<AcpiMadtLocalApic>(madt, at);
          EXPECT_LT(next, 255u);
          EXPECT_EQ(entry.uid, next);
          EXPECT_EQ(entry.apic_id, next++);
          EXPECT_EQ(entry.flags, 1u);
          break;
        }
        case 9: {
          const auto entry = As<AcpiMadtLocalX2Apic>(madt, at);
          EXPECT_GE(next, 255u);
          EXPECT_EQ(entry.uid, next);
          EXPECT_EQ(entry.x2apic_id, next++);
          EXPECT_EQ(entry.flags, 1u);
          break;
        }
        case 1: {
          const auto entry = As<AcpiMadtIoApic>(madt, at);
          EXPECT_EQ(entry.address, kIoApicBase.raw());
          EXPECT_EQ(entry.first_interrupt, 0u);
          others.push_back(type);
          break;
        }
        default: others.push_back(type);
      }
    }
    EXPECT_EQ(next, processors);
    EXPECT_EQ(others, processors > 255 ? (std::vector<int>{1, 4, 10}) : (std::vector<int>{1, 4}));
  }
}

TEST(AcpiTablesTest, TheMcfgIsTheLayouts) {
  const auto mcfg = As<AcpiMcfg>(Tables({}).table("MCFG"));
  EXPECT_EQ(mcfg.header.length, 60u);
  EXPECT_EQ(mcfg.ecam_base, kEcamBase.raw());
  EXPECT_EQ(mcfg.segment, 0);
  EXPECT_EQ(mcfg.first_bus, 0);
  EXPECT_EQ(mcfg.last_bus, 0);
}

// The sources cannot include the headers that define the numbers: their descriptors are looked for.
TEST(AcpiTablesTest, TheSourcesNameTheSameAddressesAsTheHeaders) {
  const Tables tables({});
  static_assert(kAcpiSleepControlPort == 0x600 && kAcpiPmPorts == 3 && kSleepTypeS5 == 5);
  EXPECT_TRUE(Contains(tables.table("DSDT"), {0x47, 0x01, 0x00, 0x06, 0x00, 0x06, 0x01, 0x03}));  // I/O ports
  EXPECT_TRUE(Contains(tables.table("DSDT"), {'_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x05, 0x0a, 0x05, 0x00, 0x00}));
  static_assert(kPvpanicPort == 0x505);
  EXPECT_TRUE(Contains(tables.table("VMMPANIC"), {0x47, 0x01, 0x05, 0x05, 0x05, 0x05, 0x01, 0x01}));
  EXPECT_TRUE(Contains(tables.table("VMMCOM1"), {0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08}));
  // Extended interrupt: consumer, edge, active high, exclusive; one, number 4.
  EXPECT_TRUE(Contains(tables.table("VMMCOM1"), {0x89, 0x06, 0x00, 0x03, 0x01, 0x04, 0x00, 0x00, 0x00}));
  static_assert(kEcamBase == Gpa(0xe000'0000) && kEcamBytes == 0x10'0000);
  EXPECT_TRUE(Contains(tables.table("VMMPCIE"), {0x86, 0x09, 0x00, 0x01, 0x00, 0x00, 0x00, 0xe0, 0x00, 0x00, 0x10, 0x00}));
  static_assert(kPciWindow32 == Gpa(0xc000'0000) && kPciWindow32Bytes == 0x2000'0000);
  EXPECT_TRUE(Contains(tables.table("VMMPCIE"), {0x00, 0x00, 0x00, 0xc0, 0xff, 0xff, 0xff, 0xdf, 0x00, 0x00, 0x00, 0x00, 0x00,
                                                 0x00, 0x00, 0x20}));
}

TEST(AcpiTablesTest, TheGeneratedTableIsWhatTheCompilerMakes) {
  const Bytes table = Tables({.processors = 2, .pci = false}).table("VMMCONF");
  // Scope (\_SB) { Device (C000) { _HID, _UID 0 } Device (C001) { _HID, _UID 1 } }, by iasl.
  const std::string kExpected(
      "\x10\x3e\\_SB_"
      "\x5b\x82\x1a" "C000\x08_HID\x0d" "ACPI0007\0\x08_UID\0"
      "\x5b\x82\x1a" "C001\x08_HID\x0d" "ACPI0007\0\x08_UID\x01", 2 + 5 + 2 * 28);
  const std::string found(reinterpret_cast<const char*>(table.data()) + sizeof(AcpiTableHeader),
                          table.size() - sizeof(AcpiTableHeader));
  EXPECT_EQ(found, kExpected);
}

TEST(AcpiTablesTest, TheImageFitsTheBiosArea) {
  EXPECT_LE(Tables({.processors = kMaxAcpiProcessors}).image_bytes(), 0x20000u);
}

TEST(AcpiTablesTest, RefusesWhatItCannotDescribe) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(BuildAcpi({.processors = 0}, kBase), StatusIs(kInvalid, "build ACPI tables: 0 processors, 1 to 1024"));
  EXPECT_THAT(BuildAcpi({.processors = 1025}, kBase), StatusIs(kInvalid, "1025 processors"));
  EXPECT_THAT(BuildAcpi({}, Gpa(0xe0008)), StatusIs(kInvalid, "base 0xe0008 is not aligned to 16"));
  const struct {
    Gpa start;
    uint64_t bytes;
  } kWindows[] = {{Gpa(3 * kGiB), kGiB}, {Gpa(5 * kGiB + 1), kGiB}, {Gpa(5 * kGiB), 1}, {Gpa(5 * kGiB), ~uint64_t{0xfff}}};
  for (const auto& w : kWindows) {
    EXPECT_THAT(BuildAcpi({.pci_window64 = w.start, .pci_window64_bytes = w.bytes}, kBase),
                StatusIs(kInvalid, "is not whole pages above 4 GiB"));
  }
}

}  // namespace
}  // namespace vmm
