#include "vmm/hyperv/vsm_machine.h"

#include <array>

#include "base/status_macros.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/vsm/msr_intercepts.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/reference_apic_time.h"

namespace vmm {

namespace {

// An unmodified KVM tells of MSRs alone: no interface of it has an exit for writes of CR0, CR4, XCR0, or of descriptor table registers.
VsmOffer WithHostsIntercepts(VsmOffer offer) noexcept {
  offer.cr_intercepts = MsrCrEvents();
  return offer;
}

}  // namespace

VsmMachine::VsmMachine(const Environment& environment, const HvOffer& offer, const VsmOffer& vsm)
    : environment_(environment), offer_(offer), partition_(WithHostsIntercepts(vsm)), locks_(offer.max_vps), vps_(offer.max_vps) {
  for (size_t i = 0; i < environment_.levels.size(); ++i) {
    levels_.push_back(std::make_unique<Level>(environment_, Vtl(static_cast<uint8_t>(i + 1))));
    for (uint32_t index = 0; index < offer_.max_vps; ++index) {
      levels_.back()->vps.push_back(std::make_unique<UpperLevel>(VpIndex(index), levels_.back()->vtl));
    }
  }
  for (uint32_t index = 0; index < offer_.max_vps; ++index) {
    Vp& vp = vps_[index];
    for (size_t vtl = 0; vtl <= levels_.size(); ++vtl) {
      vp.services.push_back(std::make_unique<VsmLevel>(VpIndex(index), Vtl(static_cast<uint8_t>(vtl)),
                                                       VsmLevel::Environment{partition_, locks_, *ports_, environment_.requests, *this, environment_.protections, environment_.memory}));
    }
    std::array<ScheduledLevel*, kHvVtlCount> levels{&environment_.vtl0[index].level};
    vp.hosts.push_back(&environment_.vtl0[index].host);
    for (const auto& level : levels_) {
      levels[level->vtl.raw()] = level->vps[index].get();
      vp.hosts.push_back(&level->vps[index]->host());
    }
    vp.scheduler = std::make_unique<VtlScheduler>(VpIndex(index),
                                                  VtlScheduler::Environment{.processor = vp.processor,
                                                                            .partition = partition_,
                                                                            .locks = locks_,
                                                                            .registers = vp.registers,
                                                                            .requests = environment_.requests,
                                                                            .levels = levels,
                                                                            .kick_all = [this] { KickAll(); }});
  }
}

VsmMachine::~VsmMachine() = default;

absl::Status VsmMachine::PrepareVcpu(kvm::Vcpu& vcpu) {
  // The APIC is on, as after power-up: CPUID shows it. Its registers are ours.
  ASSIGN_OR_RETURN(kvm_sregs sregs, vcpu.GetSregs());
  sregs.apic_base = kApicDefaultPage | kApicBaseEnabled | (vcpu.index() == 0 ? kApicBaseBsp : 0);
  return vcpu.SetSregs(sregs);
}

GuestInterface& VsmMachine::guest(uint32_t index, Vtl vtl) noexcept { return *levels_[vtl.raw() - 1u]->vps[index]; }

absl::Status VsmMachine::TrapMsrs(Level& level) {
  // All that is Hyper-V's, and what KVM would answer of a local APIC that it has not.
  constexpr std::array<kvm::MsrRange, 3> kTrapped{{{.base = kHvMsrFirst, .count = kHvMsrCount},
                                                   {.base = kMsrApicBase, .count = 1},
                                                   {.base = kMsrTscDeadline, .count = 1}}};
  return level.parts.vm.SetMsrFilter(kTrapped, /*refused_exit=*/true);
}

absl::Status VsmMachine::Finish(const std::vector<std::unique_ptr<VirtualProcessor>>& processors,
                                const Interface& interface) {
  vtl0_view_ = &interface.vtl0_view;
  traps_ = std::make_unique<MsrTraps>(offer_.max_vps, interface.vtl0_trapped, [&vm = interface.vtl0_vm](std::span<const kvm::MsrRange> ranges) {
    return vm.ReplaceMsrFilter(ranges);
  });
  for (uint32_t index = 0; index < offer_.max_vps; ++index) {
    Vp& vp = vps_[index];
    vp.virtual_processor = processors[index].get();
    vp.processor.SetProcessor(*processors[index]);
    vp.processor.SetTraps(*traps_);
    vp.registers.SetProcessor(*processors[index]);
    vp.intercepts = std::make_unique<MemoryIntercepts>(
        VpIndex(index), kVtl0,
        MemoryIntercepts::Environment{.processor = *processors[index],
                                      .scheduler = *vp.scheduler,
                                      .memory = environment_.memory,
                                      .level_memory = interface.vtl0_memory,
                                      .protections = environment_.protections,
                                      .view = interface.vtl0_view,
                                      .synic_of = [this, index](Vtl vtl) { return FindSynic(VpIndex(index), vtl); }});
  }
  for (uint32_t index = 0; index < offer_.max_vps; ++index) {
    vps_[index].accesses = std::make_unique<AccessIntercepts>(
        VpIndex(index), kVtl0,
        AccessIntercepts::Environment{.processor = *processors[index],
                                      .scheduler = *vps_[index].scheduler,
                                      .ports = *ports_,
                                      .memory = environment_.memory,
                                      .protections = environment_.protections,
                                      .view = interface.vtl0_view,
                                      .synic_of = [this, index](Vtl vtl) { return FindSynic(VpIndex(index), vtl); }});
  }
  for (const auto& level : levels_) {
    RETURN_IF_ERROR(TrapMsrs(*level));
    ASSIGN_OR_RETURN(level->partition, HvPartition::Create(offer_, interface.shared, level->overlays, ReferenceApicTime::kFrequency));
    for (uint32_t index = 0; index < offer_.max_vps; ++index) {
      kvm::Vcpu& vcpu = processors[index]->vcpu(level->vtl.raw());
      // The TSC is each level's own by name alone: all have the same.
      if (interface.tsc_offset) RETURN_IF_ERROR(vcpu.SetTscOffset(*interface.tsc_offset));
      RETURN_IF_ERROR(level->vps[index]->Finish(*processors[index], offer_,
                                                {.partition = *level->partition,
                                                 .connections = interface.connections,
                                                 .vps = *level,
                                                 .clock = interface.clock,
                                                 .memory = level->memory,
                                                 .overlays = level->overlays,
                                                 .view = level->parts.view,
                                                 .requests = environment_.requests,
                                                 .loop = environment_.loop,
                                                 .apics = level->apics,
                                                 .flush = level->flush,
                                                 .levels = *vps_[index].services[level->vtl.raw()],
                                                 .scheduler = *vps_[index].scheduler}));
    }
  }
  return absl::OkStatus();
}

Synic* VsmMachine::FindSynic(VpIndex vp, Vtl vtl) noexcept {
  if (vtl == kVtl0 || vtl.raw() > levels_.size()) return nullptr;
  HvVp* const found = levels_[vtl.raw() - 1u]->FindVp(vp);
  return found == nullptr ? nullptr : &found->synic();
}

void VsmMachine::KickAll() noexcept {
  for (Vp& vp : vps_) vp.virtual_processor->Kick();
}

}  // namespace vmm
