#include "vmm/boot/boot_entry.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {
namespace {

// Linux's __BOOT_CS, __BOOT_DS and __BOOT_TSS; PVH leaves the selectors open.
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kTaskSelector = 0x20;

constexpr uint64_t kFlatCode32 = 0x00cf'9b00'0000'ffff;
constexpr uint64_t kFlatCode64 = 0x00af'9b00'0000'ffff;
constexpr uint64_t kFlatData = 0x00cf'9300'0000'ffff;
constexpr uint64_t kBusyTask = 0x0000'8b00'0000'0067;

constexpr uint64_t kCr0ProtectionEnable = uint64_t{1} << 0;
constexpr uint64_t kCr0ExtensionType = uint64_t{1} << 4;  // always 1 in hardware
constexpr uint64_t kCr0Paging = uint64_t{1} << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = uint64_t{1} << 5;
constexpr uint64_t kEferLongModeEnable = uint64_t{1} << 8;
constexpr uint64_t kEferLongModeActive = uint64_t{1} << 10;

constexpr uint64_t kPagePresent = 1;
constexpr uint64_t kPageWritable = 2;
constexpr uint64_t kPageLarge = 0x80;
constexpr uint64_t kEntriesPerTable = 512;
constexpr uint64_t kLargePageBytes = 2 * kMiB;
constexpr uint64_t kMappedGiB = 4;
static_assert(kPageTablesBytes == (2 + kMappedGiB) * kPageBytes);

// The register is filled from the descriptor that is in the table, so that a reload changes nothing.
constexpr BootSegment Segment(uint16_t selector, uint64_t descriptor) {
  BootSegment segment;
  segment.selector = selector;
  segment.base = ((descriptor >> 16) & 0xff'ffff) | ((descriptor >> 56) << 24);
  segment.limit = static_cast<uint32_t>((descriptor & 0xffff) | ((descriptor >> 32) & 0xf'0000));
  segment.type = (descriptor >> 40) & 0xf;
  segment.s = (descriptor >> 44) & 1;
  segment.dpl = (descriptor >> 45) & 3;
  segment.present = (descriptor >> 47) & 1;
  segment.l = (descriptor >> 53) & 1;
  segment.db = (descriptor >> 54) & 1;
  segment.g = (descriptor >> 55) & 1;
  if (segment.g) segment.limit = (segment.limit << 12) | 0xfff;
  return segment;
}

// A task descriptor takes two slots in 64-bit mode: the upper half of its base is zero.
using Gdt = std::array<uint64_t, kBootGdtBytes / 8>;
constexpr Gdt MakeGdt(uint64_t code) {
  Gdt gdt{};
  gdt[kCodeSelector / 8] = code;
  gdt[kDataSelector / 8] = kFlatData;
  gdt[kTaskSelector / 8] = kBusyTask;
  return gdt;
}

absl::Status NotRam(Gpa gpa) {
  return absl::InternalError(absl::StrCat("write boot data at 0x", absl::Hex(gpa.raw()), ": not RAM"));
}

absl::StatusOr<BootEntry> WriteCommon(const GuestMemory& memory, Gpa entry, uint64_t code) {
  if (!memory.WriteObject(kBootGdtBase, MakeGdt(code))) return NotRam(kBootGdtBase);
  BootEntry boot;
  boot.rip = entry.raw();
  boot.rsp = (kBootStackBase + kBootStackBytes).raw();
  boot.gdt_base = kBootGdtBase;
  boot.gdt_limit = kBootGdtBytes - 1;
  boot.code = Segment(kCodeSelector, code);
  boot.data = Segment(kDataSelector, kFlatData);
  boot.task = Segment(kTaskSelector, kBusyTask);
  boot.cr0 = kCr0ProtectionEnable | kCr0ExtensionType;
  return boot;
}

}  // namespace

absl::StatusOr<BootEntry> WriteBootEntryProtected32(const GuestMemory& memory, Gpa entry) {
  auto boot = WriteCommon(memory, entry, kFlatCode32);
  if (boot.ok()) boot->mode = CpuMode::kProtected32;
  return boot;
}

absl::StatusOr<BootEntry> WriteBootEntryLong64(const GuestMemory& memory, Gpa entry) {
  auto boot = WriteCommon(memory, entry, kFlatCode64);
  if (!boot.ok()) return boot;

  if (!memory.Fill(kPageTablesBase, std::byte{0}, kPageTablesBytes)) return NotRam(kPageTablesBase);
  const Gpa upper = kPageTablesBase + kPageBytes;
  const Gpa directories = upper + kPageBytes;
  bool written = memory.WriteObject(kPageTablesBase, upper.raw() | kPagePresent | kPageWritable);
  for (uint64_t gib = 0; gib < kMappedGiB; ++gib) {
    const Gpa directory = directories + gib * kPageBytes;
    written &= memory.WriteObject(upper + gib * 8, directory.raw() | kPagePresent | kPageWritable);
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      const uint64_t page = (gib * kEntriesPerTable + i) * kLargePageBytes;
      written &= memory.WriteObject(directory + i * 8, page | kPagePresent | kPageWritable | kPageLarge);
    }
  }
  if (!written) return NotRam(kPageTablesBase);

  boot->mode = CpuMode::kLong64;
  boot->cr0 |= kCr0Paging;
  boot->cr3 = kPageTablesBase.raw();
  boot->cr4 = kCr4PhysicalAddressExtension;
  boot->efer = kEferLongModeEnable | kEferLongModeActive;
  return boot;
}

}  // namespace vmm
