#include "vmm/hyperv/hyperv_machine.h"

#include <array>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "vmm/hyperv/hyperv_processor.h"

namespace vmm {
namespace {

// KVM's local APIC counts at 1 GHz unless told otherwise, and we do not.
constexpr uint64_t kApicHz = 1'000'000'000;

LevelMemory MakeMemory(const HypervMachine::Environment& environment) {
  if (environment.protections == nullptr) return LevelMemory(environment.memory);
  return LevelMemory(environment.memory, environment.protections->map(), environment.protections->gate(), kVtl0.raw());
}

}  // namespace

absl::StatusOr<std::unique_ptr<HypervMachine>> HypervMachine::Create(const Environment& environment, const HvOffer& offer,
                                                                     Backing backing) {
  struct {
    uint32_t number;
    const char* name;
  } constexpr kNeeded[] = {{KVM_CAP_HYPERV_SYNIC2, "KVM_CAP_HYPERV_SYNIC2"},
                           {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
                           {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
                           {KVM_CAP_IRQFD_RESAMPLE, "KVM_CAP_IRQFD_RESAMPLE"},
                           {KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS"},
                           {KVM_CAP_PRE_FAULT_MEMORY, "KVM_CAP_PRE_FAULT_MEMORY (Linux 6.11)"}};
  for (const auto& needed : kNeeded) {
    if (environment.vm.CheckExtension(needed.number) <= 0) {
      return absl::FailedPreconditionError(absl::StrCat("offer the Hyper-V interface: this host's KVM has no ", needed.name));
    }
  }
  auto machine = std::unique_ptr<HypervMachine>(new HypervMachine(environment, offer, backing));
  absl::Status status;
  environment.loop.RunThere([&] {
    auto watch = EoiWatch::Create(environment.loop.loop(), [it = machine.get()](VpIndex vp, Sint sint) {
      if (HvVp* const target = it->FindVp(vp)) target->NotifyEoi(sint);
    });
    status = watch.status();
    if (status.ok()) machine->eoi_watch_ = *std::move(watch);
  });
  RETURN_IF_ERROR(status);
  return machine;
}

HypervMachine::HypervMachine(const Environment& environment, const HvOffer& offer, Backing backing)
    : environment_(environment),
      offer_(offer),
      backing_(backing),
      memory_(MakeMemory(environment)),
      overlays_(environment.view, memory_),
      connections_(*this) {
  for (uint32_t index = 0; index < offer.max_vps; ++index) {
    processors_.push_back(std::make_unique<HypervProcessor>(
        index, HypervProcessor::Environment{environment_.vm, environment_.view, environment_.requests, environment_.loop, processors_, flush_}));
  }
  if (environment_.levels.empty()) return;
  std::vector<VsmMachine::Environment::Vtl0> vtl0;
  for (const auto& processor : processors_) vtl0.push_back({*processor, processor->host()});
  vsm_ = std::make_unique<VsmMachine>(
      VsmMachine::Environment{environment_.memory, environment_.loop, environment_.requests, vtl0, environment_.levels,
                              *environment_.protections},
      offer, environment_.vsm);
}

HypervMachine::~HypervMachine() {
  vsm_.reset();
  processors_.clear();
  environment_.loop.RunThere([this] { eoi_watch_.reset(); });
}

absl::Status HypervMachine::PrepareVcpu(kvm::Vcpu& vcpu) {
  RETURN_IF_ERROR(vcpu.EnableSynic2());
  vcpu.EnableSyncRegs(/*with_sregs=*/true);
  return absl::OkStatus();
}

GuestInterface& HypervMachine::guest(uint32_t index) noexcept { return *processors_[index]; }

absl::Status HypervMachine::Finish(const std::vector<std::unique_ptr<VirtualProcessor>>& processors) {
  kvm::Vcpu& first = processors.front()->vcpu();
  // One offset for all: the reference TSC page is one. Where KVM has no such attribute it synchronizes them itself.
  const auto offset = first.GetTscOffset();
  if (offset.ok()) {
    for (const auto& processor : processors) RETURN_IF_ERROR(processor->vcpu().SetTscOffset(*offset));
  }
  // Reference time starts at 0; and only now does KVM say whether its clock is the TSC, without which the page would be invalid.
  RETURN_IF_ERROR(environment_.vm.SetClock(0));
  ASSIGN_OR_RETURN(clock_, KvmReferenceClock::Create(environment_.vm, first));
  shared_ = std::make_unique<HvSharedRegisters>(
      HvSharedRegisters::Environment{*clock_, environment_.control, memory_},
      HvSharedRegisters::Frequencies{.tsc_hz = uint64_t{first.TscKhz()} * 1000, .apic_hz = kApicHz});
  ASSIGN_OR_RETURN(partition_, HvPartition::Create(offer_, *shared_, overlays_));
  const std::vector<kvm::MsrRange> trapped = TrappedMsrs();
  RETURN_IF_ERROR(environment_.vm.SetMsrFilter(trapped));
  if (vsm_ != nullptr) {
    RETURN_IF_ERROR(vsm_->Finish(processors, {.shared = *shared_,
                                              .connections = connections_,
                                              .clock = *clock_,
                                              .vtl0_view = environment_.view,
                                              .vtl0_memory = memory_,
                                              .vtl0_vm = environment_.vm,
                                              .vtl0_trapped = trapped,
                                              .tsc_offset = offset.ok() ? std::optional<uint64_t>(*offset) : std::nullopt}));
  }
  HypervProcessor::Interface interface{.partition = *partition_,
                                       .connections = connections_,
                                       .vps = *this,
                                       .clock = *clock_,
                                       .memory = memory_,
                                       .overlays = overlays_,
                                       .eoi_watch = *eoi_watch_,
                                       .kernel_timers = backing_ == Backing::kKernel,
                                       .levels = nullptr,
                                       .intercepts = nullptr,
                                       .accesses = nullptr};
  for (size_t index = 0; index < processors.size(); ++index) {
    if (vsm_ != nullptr) {
      interface.levels = &vsm_->vtl0(static_cast<uint32_t>(index));
      interface.intercepts = &vsm_->intercepts(static_cast<uint32_t>(index));
      interface.accesses = &vsm_->accesses(static_cast<uint32_t>(index));
    }
    RETURN_IF_ERROR(processors_[index]->Finish(*processors[index], offer_, interface));
  }
  return absl::OkStatus();
}

// All but the local APIC's registers, and what the kernel answers as well as we would, and faster.
std::vector<kvm::MsrRange> HypervMachine::TrappedMsrs() const {
  std::vector<kvm::MsrRange> ranges;
  const auto trap = [&ranges](uint32_t first, uint32_t end) { ranges.push_back({.base = first, .count = end - first}); };
  const bool kernel = backing_ == Backing::kKernel;
  // The kernel's time is ours. Where there is a page the register must agree with it to the last tick, and is seldom read.
  if (kernel && !clock_->tsc_parameters()) {
    trap(kHvMsrFirst, kHvMsrTimeRefCount);
    trap(kHvMsrTimeRefCount + 1, kHvMsrEoi);
  } else {
    trap(kHvMsrFirst, kHvMsrEoi);
  }
  if (kernel) {
    trap(kHvMsrVpAssistPage, kHvMsrStimer0Config);
    // CONFIG names the SINT whose slot the kernel will write to; COUNT, which is written at each tick, stays with it.
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      ranges.push_back({.base = kHvMsrStimer0Config + 2 * timer, .count = 1, .read = false, .write = true});
    }
    trap(kHvMsrStimer3Count + 1, kHvMsrFirst + kHvMsrCount);
  } else {
    trap(kHvMsrVpAssistPage, kHvMsrFirst + kHvMsrCount);
  }
  return ranges;
}

void HypervMachine::RaiseSint(VpIndex vp, Sint sint) noexcept {
  if (vp.raw() < processors_.size()) processors_[vp.raw()]->sints().Raise(sint);
}

Synic* HypervMachine::Find(VpIndex vp, Vtl vtl) noexcept {
  if (vtl != kVtl0) return vsm_ != nullptr ? vsm_->FindSynic(vp, vtl) : nullptr;
  HvVp* const found = FindVp(vp);
  return found == nullptr ? nullptr : &found->synic();
}

HvVp* HypervMachine::FindVp(VpIndex vp) noexcept {
  return vp.raw() < processors_.size() ? processors_[vp.raw()]->vp() : nullptr;
}

std::vector<HypervMachine::VpStats> HypervMachine::stats() const {
  std::vector<VpStats> stats;
  for (const auto& processor : processors_) {
    if (processor->vp() == nullptr) continue;
    stats.push_back({.synic = processor->vp()->synic().stats(),
                     .hypercalls = processor->vp()->hypercall_stats(),
                     .sint_failures = processor->sint_failures()});
  }
  return stats;
}

}  // namespace vmm
