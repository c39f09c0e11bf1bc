// Writes the tables of one configuration as files, for iasl and acpiexec to judge:
//   dump_acpi_tables FOLDER PROCESSORS all|none
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "memory/layout.h"
#include "vmm/acpi/acpi_layout.h"
#include "vmm/acpi/acpi_tables.h"

namespace vmm {
namespace {

bool WriteFile(const std::string& path, const std::byte* bytes, size_t count) {
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  const bool written = std::fwrite(bytes, 1, count, file) == count;
  return std::fclose(file) == 0 && written;
}

int Dump(const std::string& folder, const AcpiConfig& config) {
  constexpr Gpa kBase{0xe0000};
  const auto image = BuildAcpi(config, kBase);
  if (!image.ok()) return 1;
  const std::byte* const start = image->bytes.data();
  AcpiRsdp rsdp;
  std::memcpy(&rsdp, start, sizeof(rsdp));
  const auto dump = [&](uint64_t gpa) {
    const std::byte* const table = start + (gpa - kBase.raw());
    AcpiTableHeader header;
    std::memcpy(&header, table, sizeof(header));
    std::string name(header.signature, sizeof(header.signature));
    if (name == "SSDT") name.assign(header.oem_table_id, strnlen(header.oem_table_id, sizeof(header.oem_table_id)));
    return WriteFile(absl::StrCat(folder, "/", name, ".dat"), table, header.length);
  };
  if (!dump(rsdp.xsdt_address)) return 1;
  AcpiTableHeader xsdt;
  const std::byte* const list = start + (rsdp.xsdt_address - kBase.raw());
  std::memcpy(&xsdt, list, sizeof(xsdt));
  for (size_t at = sizeof(xsdt); at < xsdt.length; at += sizeof(uint64_t)) {
    uint64_t gpa;
    std::memcpy(&gpa, list + at, sizeof(gpa));
    if (!dump(gpa)) return 1;
    AcpiFadt fadt;
    std::memcpy(&fadt.header, start + (gpa - kBase.raw()), sizeof(fadt.header));
    if (std::memcmp(fadt.header.signature, "FACP", 4) != 0) continue;
    std::memcpy(&fadt, start + (gpa - kBase.raw()), sizeof(fadt));
    if (!dump(fadt.x_dsdt)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const bool all = std::strcmp(argv[3], "all") == 0;
  return vmm::Dump(argv[1], {.processors = static_cast<uint32_t>(std::atoi(argv[2])),
                             .serial = all,
                             .pvpanic = all,
                             .rtc = all,
                             .pci = all,
                             .pci_window64 = vmm::Gpa(5 * vmm::kGiB),
                             .pci_window64_bytes = all ? 64 * vmm::kGiB : 0});
}
