#include "kvm/capabilities.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kvm/system.h"
#include "kvm/uapi.h"

namespace vmm::kvm {
namespace {

struct Row {
  uint32_t capability;
  const char* name;
  const char* needed_for;
  bool required;
};

constexpr Row kRows[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", "guest RAM", true},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "stopping a virtual processor without a race", true},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "in-kernel local APIC and I/O APIC", true},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD", "interrupts from device processes", true},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", "doorbells without an exit", true},
    {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING", "message-signalled and SynIC interrupts", true},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID", "CPUID of the guest", true},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR", "memory layout", true},
    {KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE", "free-slot notice of the in-kernel SynIC by EOI", false},
    {KVM_CAP_HYPERV_SYNIC2, "KVM_CAP_HYPERV_SYNIC2", "in-kernel SynIC for VTL0", false},
    {KVM_CAP_HYPERV_CPUID, "KVM_CAP_HYPERV_CPUID", "Hyper-V leaves", false},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR", "Hyper-V MSRs handled here", false},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER", "Hyper-V MSRs handled here", false},
    {KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS", "cheap switches between VTLs", false},
    {KVM_CAP_PRE_FAULT_MEMORY, "KVM_CAP_PRE_FAULT_MEMORY", "flushing a guest's TLBs from here", false},
    {KVM_CAP_XSAVE2, "KVM_CAP_XSAVE2", "FPU state across VTLs", false},
    {KVM_CAP_MEMORY_FAULT_INFO, "KVM_CAP_MEMORY_FAULT_INFO", "faults with an address (ways A and B)", false},
    {KVM_CAP_MEMORY_ATTRIBUTES, "KVM_CAP_MEMORY_ATTRIBUTES", "page protections by attribute (ways A and B)", false},
    {KVM_CAP_TSC_CONTROL, "KVM_CAP_TSC_CONTROL", "a TSC frequency of the guest's own", false},
    {KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER", "local APIC timer by TSC deadline", false},
    {KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS", "memory slots", false},
    {KVM_CAP_MAX_VCPUS, "KVM_CAP_MAX_VCPUS", "virtual processors", false},
};

}  // namespace

absl::StatusOr<Capabilities> ProbeCapabilities(const std::string& kvm_path) {
  ASSIGN_OR_RETURN(const auto system, System::Open(kvm_path));
  ASSIGN_OR_RETURN(const auto vm, system->CreateVm());
  Capabilities found;
  found.api_version = KVM_API_VERSION;
  for (const Row& row : kRows) {
    found.capabilities.push_back({row.name, vm->CheckExtension(row.capability), row.needed_for, row.required});
  }

  constexpr int kReadWriteExecute = 0b111;  // the bits that host_kernel/ adds: no read, no write, no execute
  if ((vm->CheckExtension(KVM_CAP_MEMORY_ATTRIBUTES) & kReadWriteExecute) == kReadWriteExecute) {
    found.attributes_rwx = {true, "the VM takes read, write and execute attributes for each page"};
  } else {
    found.attributes_rwx = {false, "this kernel has no read, write and execute attributes (it needs our host kernel patches)"};
  }

  if (const auto protected_vm = system->CreateVmWithPrivateAttribute(); protected_vm.ok()) {
    found.attributes_private = {true, "a VM of type SW_PROTECTED_VM takes the PRIVATE attribute"};
  } else {
    found.attributes_private = {false, std::string(protected_vm.status().message())};
  }

  if (vm->HasNestedPaging()) {
    found.host_mapping = {true, "the mapping behind guest RAM can be protected on any KVM with nested paging"};
  } else {
    found.host_mapping = {false, "this KVM has no nested paging, or is older than Linux 6.11 and does not say so"};
  }
  return found;
}

}  // namespace vmm::kvm
