#include "examples/vault/secure_kernel/hypervisor.h"

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"

extern "C" {
uint64_t VaultHypercall(uint64_t control, uint64_t input, uint64_t output);
void VaultTakeInterrupts();
extern char vault_interrupt[], vault_exception[];
extern uint64_t vault_idt[];
uint64_t vault_hypercall_page, vault_return_entry;
[[noreturn]] void VaultException(uint64_t first, uint64_t second);
}

namespace vault {
namespace {

using vmm::HvRegisterName;
using vmm::HypercallCode;

constexpr uint64_t kPage = 4096;
constexpr uint8_t kVector = 0xf3;
constexpr uint32_t kSelf = 0xffff'fffe;

struct alignas(4096) Page {
  uint8_t bytes[kPage];
};
Page g_hypercall_page, g_assist_page, g_message_page, g_input, g_output;

void WriteMsr(uint32_t msr, uint64_t value) {
  asm volatile("wrmsr" : : "c"(msr), "a"(static_cast<uint32_t>(value)), "d"(static_cast<uint32_t>(value >> 32)) : "memory");
}
uint64_t At(const Page& page) { return reinterpret_cast<uint64_t>(&page); }

template <typename T>
T& Input(uint64_t offset = 0) {
  return *reinterpret_cast<T*>(g_input.bytes + offset);
}

void Call(HypercallCode code, uint64_t reps, const char* what) {
  const uint64_t control = static_cast<uint64_t>(code) | reps << vmm::HypercallInput::kRepCountShift;
  const uint64_t result = VaultHypercall(control, At(g_input), At(g_output));
  if ((result & 0xffff) != 0) Panic(what, result);
}

void SetRegister(HvRegisterName name, vmm::HvRegisterValue value, uint8_t input_vtl) {
  Input<vmm::HvVpRegistersInput>() = {.partition_id = vmm::kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = input_vtl, .reserved = {}};
  Input<vmm::HvSetVpRegistersElement>(16) = {.name = name, .reserved = {}, .value = value};
  Call(HypercallCode::kSetVpRegisters, 1, "SetVpRegisters answers");
}

uint64_t GetRegister(HvRegisterName name) {
  Input<vmm::HvVpRegistersInput>() = {.partition_id = vmm::kHvPartitionIdSelf, .vp_index = kSelf, .target_vtl = 0, .reserved = {}};
  Input<HvRegisterName>(16) = name;
  Call(HypercallCode::kGetVpRegisters, 1, "GetVpRegisters answers");
  return *reinterpret_cast<const volatile uint64_t*>(g_output.bytes);
}

void SetGate(uint32_t vector, const char* target) {
  const uint64_t at = reinterpret_cast<uint64_t>(target);
  vault_idt[2 * vector] = (at & 0xffff) | uint64_t{8} << 16 | uint64_t{0x8e} << 40 | (at & 0xffff'0000) << 32;
  vault_idt[2 * vector + 1] = at >> 32;
}

volatile vmm::HvVpAssistPage& Assist() { return *reinterpret_cast<volatile vmm::HvVpAssistPage*>(g_assist_page.bytes); }

}  // namespace

void Log(const char* text) {
  while (*text != '\0') asm volatile("outb %0, $0xe9" : : "a"(*text++));
}

void Log(const char* text, uint64_t value) {
  Log(text);
  Log(" 0x");
  int shift = 60;
  while (shift > 0 && value >> shift == 0) shift -= 4;
  for (; shift >= 0; shift -= 4) {
    const char digit[] = {"0123456789abcdef"[value >> shift & 0xf], '\0'};
    Log(digit);
  }
  Log("\n");
}

void Panic(const char* why, uint64_t value) {
  Log("secure kernel: PANIC: ");
  Log(why, value);
  while (true) asm volatile("cli; hlt");
}

void StartHypervisor() {
  for (uint32_t vector = 0; vector < 256; ++vector) SetGate(vector, vault_exception);
  SetGate(kVector, vault_interrupt);
  WriteMsr(vmm::kHvMsrVpAssistPage, At(g_assist_page) | vmm::kHvOverlayEnable);
  WriteMsr(vmm::kHvMsrGuestOsId, uint64_t{1} << 63 | 0x7661'756c);
  WriteMsr(vmm::kHvMsrHypercall, At(g_hypercall_page) | vmm::kHvOverlayEnable);
  vault_hypercall_page = At(g_hypercall_page);
  vault_return_entry = At(g_hypercall_page) + (GetRegister(HvRegisterName::kVsmCodePageOffsets) >> vmm::kHvVsmReturnOffsetShift & 0xfff);
  WriteMsr(vmm::kHvMsrSimp, At(g_message_page) | vmm::kHvOverlayEnable);
  WriteMsr(vmm::kHvMsrSint0, kVector | vmm::kHvSintAutoEoi);
  WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
  // The local APIC takes no interrupt before it is enabled by software.
  *reinterpret_cast<volatile uint32_t*>(0xfee0'00f0) = 0x1ff;
}

void HidePages(uint64_t gpa, uint64_t bytes) {
  SetRegister(HvRegisterName::kVsmPartitionConfig, {vmm::kHvConfigEnableProtection | vmm::kHvConfigDefaultMask, 0}, 0);
  constexpr uint64_t kAtOnce = 510;
  for (uint64_t first = gpa / kPage, left = bytes / kPage; left != 0;) {
    const uint64_t count = left < kAtOnce ? left : kAtOnce;
    Input<vmm::HvModifyVtlProtectionInput>() = {.partition_id = vmm::kHvPartitionIdSelf, .flags = 0, .target_vtl = 0, .reserved = {}};
    for (uint64_t i = 0; i < count; ++i) Input<uint64_t>(16 + 8 * i) = first + i;
    Call(HypercallCode::kModifyVtlProtectionMask, count, "ModifyVtlProtectionMask answers");
    first += count;
    left -= count;
  }
}

Entry WhyEntered() {
  return Assist().entry_reason == static_cast<uint32_t>(vmm::VtlEntryReason::kInterrupt) ? Entry::kInterrupt : Entry::kCall;
}

void SetReturnRegisters(uint64_t rax, uint64_t rcx) {
  Assist().vtl_return_rax = rax;
  Assist().vtl_return_rcx = rcx;
}

bool TakeIntercept(vmm::HvMemoryIntercept& message) {
  VaultTakeInterrupts();
  auto& slot = *reinterpret_cast<vmm::HvMessage*>(g_message_page.bytes);
  volatile auto& type = *reinterpret_cast<volatile uint32_t*>(g_message_page.bytes);
  if (type == 0) return false;
  if (type != static_cast<uint32_t>(vmm::HvMessageType::kGpaIntercept)) Panic("a message of type", type);
  __builtin_memcpy(&message, slot.payload, sizeof(message));
  type = 0;
  asm volatile("mfence" : : : "memory");
  if ((*reinterpret_cast<volatile uint8_t*>(&slot.header.flags) & vmm::kHvMessagePending) != 0) WriteMsr(vmm::kHvMsrEom, 0);
  return true;
}

void FaultInVtl0(uint64_t address, bool write) {
  constexpr uint64_t kPageFault = 14;
  const uint64_t event = vmm::kHvEventPending | vmm::kHvEventDeliverErrorCode | kPageFault << vmm::kHvEventVectorShift |
                         uint64_t{write ? 2u : 0u} << vmm::kHvEventErrorCodeShift;
  SetRegister(HvRegisterName::kPendingEvent0, {event, address}, vmm::kHvInputVtlUseTarget);
}

}  // namespace vault

void VaultException(uint64_t first, uint64_t) {
  uint64_t cr2;
  asm volatile("mov %%cr2, %0" : "=r"(cr2));
  vault::Log("secure kernel: CR2", cr2);
  vault::Panic("an exception in the secure kernel", first);
}
