#include "tests/guests/runtime/apic.h"

#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/per_cpu.h"

namespace guest {
namespace {

constexpr uint64_t kApicPage = 0xfee0'0000;
constexpr uint32_t kX2ApicMsrs = 0x800;
constexpr uint64_t kApicBaseX2 = uint64_t{1} << 10;
constexpr uint64_t kApicBaseEnabled = uint64_t{1} << 11;
constexpr uint32_t kSpuriousEnable = 1 << 8;
constexpr uint32_t kIcrPending = 1 << 12;
constexpr uint32_t kIcrAssert = 1 << 14;

constexpr uint64_t kIoApicSelect = 0xfec0'0000;
constexpr uint64_t kIoApicWindow = 0xfec0'0010;
constexpr uint32_t kIoApicTable = 0x10;
constexpr uint32_t kIoApicLevel = 1 << 15;
constexpr uint32_t kIoApicMasked = 1 << 16;

void WriteIoApic(uint32_t index, uint32_t value) {
  Store<uint32_t>(kIoApicSelect, index);
  Store<uint32_t>(kIoApicWindow, value);
}

bool BitOf(uint32_t bank, uint8_t vector) { return (ReadApic(bank + vector / 32 * 0x10) >> (vector % 32) & 1) != 0; }

}  // namespace

uint32_t ReadApic(uint32_t offset) {
  if (ThisCpu().x2apic) return static_cast<uint32_t>(ReadMsr(kX2ApicMsrs + offset / 0x10));
  return Load<uint32_t>(kApicPage + offset);
}

void WriteApic(uint32_t offset, uint32_t value) {
  if (ThisCpu().x2apic) return WriteMsr(kX2ApicMsrs + offset / 0x10, value);
  Store<uint32_t>(kApicPage + offset, value);
}

void WriteIcr(uint32_t destination, uint32_t low) {
  if (ThisCpu().x2apic) return WriteMsr(kX2ApicMsrs + kApicIcr / 0x10, uint64_t{destination} << 32 | low);
  const InterruptsOff off;
  while ((ReadApic(kApicIcr) & kIcrPending) != 0) Pause();
  WriteApic(kApicIcrHigh, destination << 24);
  WriteApic(kApicIcr, low);
}

void SignalEoi() { WriteApic(kApicEoi, 0); }

void EnableApic() {
  ThisCpu().x2apic = (ReadMsr(kMsrApicBase) & kApicBaseX2) != 0;
  WriteApic(kApicSpurious, kSpuriousEnable | kSpuriousVector);
}

bool EnableX2Apic() {
  if ((Cpuid(1).ecx >> 21 & 1) == 0) return false;
  WriteMsr(kMsrApicBase, ReadMsr(kMsrApicBase) | kApicBaseEnabled | kApicBaseX2);
  ThisCpu().x2apic = true;
  return true;
}

bool InX2ApicMode() { return ThisCpu().x2apic; }

void SendIpi(uint32_t cpu, uint8_t vector) { WriteIcr(cpu, kIcrAssert | vector); }

bool IsRequested(uint8_t vector) { return BitOf(kApicIrr, vector); }
bool IsInService(uint8_t vector) { return BitOf(kApicIsr, vector); }

void RouteIoApic(uint32_t input, uint8_t vector, uint32_t cpu, Trigger trigger) {
  WriteIoApic(kIoApicTable + input * 2 + 1, cpu << 24);
  WriteIoApic(kIoApicTable + input * 2, vector | (trigger == Trigger::kLevel ? kIoApicLevel : 0));
}

void MaskIoApic(uint32_t input) { WriteIoApic(kIoApicTable + input * 2, kIoApicMasked); }

}  // namespace guest
