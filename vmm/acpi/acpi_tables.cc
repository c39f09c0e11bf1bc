#include "vmm/acpi/acpi_tables.h"

#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "devices/platform/power/power_registers.h"
#include "devices/platform/rtc/cmos_layout.h"
#include "memory/layout.h"
#include "vmm/acpi/acpi_layout.h"
#include "vmm/acpi/aml_writer.h"
#include "vmm/acpi/compiled_aml.h"

namespace vmm {
namespace {

constexpr char kOemId[7] = "VMM";
constexpr uint32_t kOemRevision = 1;
constexpr size_t kTableAlignment = 16;

uint8_t ChecksumFor(std::span<const std::byte> bytes) {
  uint8_t sum = 0;
  for (const std::byte b : bytes) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(b));
  return static_cast<uint8_t>(-sum);
}

template <typename T>
void Append(std::vector<std::byte>& out, const T& object) {
  const auto bytes = std::as_bytes(std::span(&object, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// All but length and checksum, which Finish sets once the table is whole.
AcpiTableHeader Header(absl::string_view signature, uint8_t revision, absl::string_view table_id) {
  AcpiTableHeader header{};
  std::memcpy(header.signature, signature.data(), sizeof(header.signature));
  header.revision = revision;
  std::memcpy(header.oem_id, kOemId, sizeof(header.oem_id));
  std::memcpy(header.oem_table_id, table_id.data(), table_id.size());
  header.oem_revision = kOemRevision;
  std::memcpy(header.creator_id, "VMM", 3);
  header.creator_revision = kOemRevision;
  return header;
}

std::vector<std::byte> Finish(std::vector<std::byte> table) {
  const auto length = static_cast<uint32_t>(table.size());
  std::memcpy(table.data() + offsetof(AcpiTableHeader, length), &length, sizeof(length));
  table[offsetof(AcpiTableHeader, checksum)] = std::byte{0};
  table[offsetof(AcpiTableHeader, checksum)] = std::byte{ChecksumFor(table)};
  return table;
}

// Where tables are put: one after the other, at addresses known at once.
class Placer {
 public:
  explicit Placer(Gpa base) : base_(base) {}
  Gpa Place(std::span<const std::byte> table) {
    bytes_.resize((bytes_.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment);
    const Gpa address = base_ + bytes_.size();
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    return address;
  }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  Gpa base_;
  std::vector<std::byte> bytes_;
};

AcpiGenericAddress BytePort(uint16_t port) {
  return {.space = kAcpiSpaceSystemIo, .bit_width = 8, .bit_offset = 0, .access_size = kAcpiAccessByte, .address = port};
}

std::vector<std::byte> Fadt(Gpa dsdt, bool rtc) {
  AcpiFadt fadt{};
  fadt.header = Header("FACP", 6, "VMMFACP");
  fadt.minor_revision = 3;
  fadt.c2_latency = kFadtNoC2Latency;
  fadt.c3_latency = kFadtNoC3Latency;
  fadt.iapc_boot_arch = kFadtNoVga | kFadtNoAspm;
  if (rtc) {
    fadt.century = kCmosCentury;
  } else {
    fadt.iapc_boot_arch |= kFadtNoCmosRtc;
  }
  fadt.flags = kFadtWbinvd | kFadtProcessorsHaveC1 | kFadtNoFixedPowerButton | kFadtNoFixedSleepButton |
               kFadtNoFixedRtcWake | kFadtResetRegister | kFadtHeadless | kFadtHardwareReduced;
  fadt.reset_register = BytePort(kAcpiResetPort);
  fadt.reset_value = kResetValue;
  fadt.sleep_control = BytePort(kAcpiSleepControlPort);
  fadt.sleep_status = BytePort(kAcpiSleepStatusPort);
  fadt.x_dsdt = dsdt.raw();  // the 32-bit field stays 0: with both, they would have to agree
  std::memcpy(fadt.hypervisor_vendor, "VMM", 3);
  std::vector<std::byte> table;
  Append(table, fadt);
  return Finish(std::move(table));
}

// No interrupt source overrides: ISA interrupts have their own numbers as global interrupts, edge-triggered and active
// high, and there is no legacy timer whose line would be another.
std::vector<std::byte> Madt(uint32_t processors) {
  std::vector<std::byte> table;
  AcpiMadt madt{};
  madt.header = Header("APIC", 5, "VMMAPIC");
  madt.local_apic_address = static_cast<uint32_t>(kLocalApicBase.raw());
  Append(table, madt);
  for (uint32_t id = 0; id < processors; ++id) {
    if (id < kMadtFirstX2ApicId) {
      Append(table, AcpiMadtLocalApic{
                        .uid = static_cast<uint8_t>(id), .apic_id = static_cast<uint8_t>(id), .flags = kMadtEnabled});
    } else {
      Append(table, AcpiMadtLocalX2Apic{.x2apic_id = id, .flags = kMadtEnabled, .uid = id});
    }
  }
  Append(table, AcpiMadtIoApic{.id = 0, .address = static_cast<uint32_t>(kIoApicBase.raw()), .first_interrupt = 0});
  Append(table, AcpiMadtLocalApicNmi{});
  if (processors > kMadtFirstX2ApicId) Append(table, AcpiMadtLocalX2ApicNmi{});
  return Finish(std::move(table));
}

std::vector<std::byte> Mcfg() {
  AcpiMcfg mcfg{};
  mcfg.header = Header("MCFG", 1, "VMMMCFG");
  mcfg.ecam_base = kEcamBase.raw();
  mcfg.last_bus = kEcamBytes / kMiB - 1;  // a bus takes 1 MiB
  std::vector<std::byte> table;
  Append(table, mcfg);
  return Finish(std::move(table));
}

std::vector<std::byte> GeneratedSsdt(const AcpiConfig& config) {
  Aml terms;
  for (uint32_t id = 0; id < config.processors; ++id) {
    terms += AmlDevice(absl::StrFormat("C%03X", id), AmlName("_HID", AmlString("ACPI0007")) + AmlName("_UID", AmlInteger(id)));
  }
  if (config.pci) {  // what ssdt_pci.asl asks for
    terms += AmlName("PWIN", AmlInteger(config.pci_window64_bytes == 0 ? 0 : config.pci_window64.raw()));
    terms += AmlName("PWLN", AmlInteger(config.pci_window64_bytes));
  }
  std::vector<std::byte> table;
  Append(table, Header("SSDT", 2, "VMMCONF"));
  const Aml scope = AmlRootScope("_SB_", terms);
  const auto bytes = std::as_bytes(std::span(scope));
  table.insert(table.end(), bytes.begin(), bytes.end());
  return Finish(std::move(table));
}

absl::Status Check(const AcpiConfig& config, Gpa base) {
  if (config.processors == 0 || config.processors > kMaxAcpiProcessors) {
    return absl::InvalidArgumentError(absl::StrCat("build ACPI tables: ", config.processors, " processors, 1 to ",
                                                   kMaxAcpiProcessors, " are possible"));
  }
  if (base.raw() % kTableAlignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat("build ACPI tables: base 0x", absl::Hex(base.raw()),
                                                   " is not aligned to ", kTableAlignment));
  }
  const uint64_t bytes = config.pci_window64_bytes;
  if (config.pci && bytes != 0 &&
      (config.pci_window64 < kMmioHoleEnd || config.pci_window64.page_offset() != 0 || bytes % kPageBytes != 0 ||
       bytes > UINT64_MAX - config.pci_window64.raw())) {
    return absl::InvalidArgumentError(absl::StrCat("build ACPI tables: 64-bit PCI window 0x",
                                                   absl::Hex(config.pci_window64.raw()), " + 0x", absl::Hex(bytes),
                                                   " bytes is not whole pages above 4 GiB"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AcpiImage> BuildAcpi(const AcpiConfig& config, Gpa base) {
  if (absl::Status checked = Check(config, base); !checked.ok()) return checked;

  // The RSDP's place is known before its contents.
  Placer placer(base);
  AcpiRsdp rsdp{};
  placer.Place(std::as_bytes(std::span(&rsdp, 1)));

  std::vector<Gpa> listed;
  const Gpa dsdt = placer.Place(std::as_bytes(kDsdtAml));
  listed.push_back(placer.Place(Fadt(dsdt, config.rtc)));
  listed.push_back(placer.Place(Madt(config.processors)));
  if (config.pci) listed.push_back(placer.Place(Mcfg()));
  if (config.serial) listed.push_back(placer.Place(std::as_bytes(kSsdtSerialAml)));
  if (config.pvpanic) listed.push_back(placer.Place(std::as_bytes(kSsdtPvpanicAml)));
  if (config.rtc) listed.push_back(placer.Place(std::as_bytes(kSsdtRtcAml)));
  if (config.pci) listed.push_back(placer.Place(std::as_bytes(kSsdtPciAml)));
  listed.push_back(placer.Place(GeneratedSsdt(config)));

  std::vector<std::byte> xsdt;
  Append(xsdt, Header("XSDT", 1, "VMMXSDT"));
  for (const Gpa table : listed) Append(xsdt, table.raw());

  std::memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
  std::memcpy(rsdp.oem_id, kOemId, sizeof(rsdp.oem_id));
  rsdp.revision = 2;
  rsdp.length = sizeof(rsdp);
  rsdp.xsdt_address = placer.Place(Finish(std::move(xsdt))).raw();
  const auto bytes = std::as_bytes(std::span(&rsdp, 1));
  rsdp.checksum = ChecksumFor(bytes.first(kAcpiRsdpV1Bytes));
  rsdp.extended_checksum = ChecksumFor(bytes);

  AcpiImage image{placer.Take(), base};
  std::memcpy(image.bytes.data(), &rsdp, sizeof(rsdp));
  return image;
}

}  // namespace vmm
