#include "vmm/hyperv/upper_level.h"

#include <utility>

#include "base/status_macros.h"
#include "kvm/vcpu.h"
#include "memory/gpa.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vmm/hyperv/vtl_scheduler.h"

namespace vmm {

UpperLevel::~UpperLevel() {
  if (!environment_) return;
  // There, so that no deadline passes meanwhile and finds the interface gone.
  environment_->loop.RunThere([this] {
    interface_.reset();
    timer_deadline_.reset();
    apic_deadline_.reset();
  });
}

absl::Status UpperLevel::Finish(VirtualProcessor& processor, const HvOffer& offer, const Environment& environment) {
  processor_ = &processor;
  offer_ = offer;
  environment_.emplace(environment);
  absl::Status status;
  environment.loop.RunThere([&] {
    auto timer = TimerfdDeadline::Create(environment.loop.loop(), environment.clock, [this] { interface_->NotifyDeadline(); });
    auto apic = TimerfdDeadline::Create(environment.loop.loop(), environment.clock, [this] {
      apic_deadline_passed_.store(true, std::memory_order_release);
      processor_->Kick();
    });
    status = timer.ok() ? apic.status() : timer.status();
    if (!status.ok()) return;
    timer_deadline_ = *std::move(timer);
    apic_deadline_ = *std::move(apic);
  });
  RETURN_IF_ERROR(status);
  apic_time_.emplace(environment.clock, *apic_deadline_);
  const LocalApic::Options options{.id = vp_.raw(),
                                   .is_bsp = vp_.raw() == 0,
                                   .has_tsc_deadline = apic_time_->has_tsc(),
                                   .minimum_period_ticks = ReferenceApicTime::kMinimumPeriodTicks};
  apic_.emplace(options, environment.apics, *apic_time_, *apic_time_, processor);
  RETURN_IF_ERROR(environment.apics.Add(*apic_));
  sints_.emplace(*apic_);
  sints_->SetSink(*this);
  const HvVp::Environment interface{.partition = environment.partition,
                                    .connections = environment.connections,
                                    .vps = environment.vps,
                                    .host = *this,
                                    .starter = *this,
                                    .clock = environment.clock,
                                    .memory = environment.memory,
                                    .overlays = environment.overlays,
                                    .sints = *sints_,
                                    .vectors = *sints_,
                                    .deadline = *timer_deadline_,
                                    .kick = processor,
                                    .kernel_timers = nullptr,
                                    .levels = &environment.levels};
  ASSIGN_OR_RETURN(interface_, HvVp::Create(vp_, vtl_, offer, interface));
  return absl::OkStatus();
}

bool UpperLevel::ReadMsr(uint32_t msr, uint64_t& value) noexcept {
  return LocalApic::Has(msr) ? apic_->ReadMsr(msr, value) : interface_->ReadMsr(msr, value);
}

bool UpperLevel::WriteMsr(uint32_t msr, uint64_t value) noexcept {
  return LocalApic::Has(msr) ? apic_->WriteMsr(msr, value) : interface_->WriteMsr(msr, value);
}

bool UpperLevel::OnRefusedMemory() noexcept {
  const uint64_t before = std::exchange(moves_before_, environment_->view.moves());
  return before != moves_before_ || moves_before_ % 2 != 0;
}

AccessAnswer UpperLevel::AccessMemory(uint64_t guest_gpa, std::span<std::byte> data, bool write) noexcept {
  if (!apic_->ClaimsMmio(guest_gpa)) {
    // KVM's emulator has met a page while it moved, and its instruction is over: stored when it has.
    const bool moved = write && !environment_->view.OverlayAt(Gpa(guest_gpa).page()) && environment_->memory.Write(Gpa(guest_gpa), data);
    return moved ? AccessAnswer::kDone : AccessAnswer::kUnclaimed;
  }
  const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(data.data()), data.size());
  if (write) {
    apic_->WriteMmio(guest_gpa, bytes);
  } else {
    apic_->ReadMmio(guest_gpa, bytes);
  }
  return AccessAnswer::kDone;
}

void UpperLevel::OnHalt() noexcept { environment_->scheduler.Halt(); }

bool UpperLevel::AssertInterrupt(const VsmServices::Interrupt& interrupt) noexcept {
  if (interrupt.level) return false;  // there is no I/O APIC that would hold it
  const bool x2apic = (apic_->apic_base() & kApicBaseX2apic) != 0;
  environment_->apics.Send(
      {.mode = interrupt.nmi ? ApicDeliveryMode::kNmi : ApicDeliveryMode::kFixed,
       .vector = interrupt.vector,
       .destination = ApicDestination::From(static_cast<uint32_t>(interrupt.destination), interrupt.logical, x2apic),
       .but_sender = false,
       .sender = ~uint32_t{0}});
  return true;
}

void UpperLevel::RunPending() noexcept {
  if (apic_deadline_passed_.load(std::memory_order_relaxed) && apic_deadline_passed_.exchange(false, std::memory_order_acquire)) {
    apic_->OnDeadline();
  }
  interface_->PrepareToEnter();
  apic_->RunPending();
}

bool UpperLevel::IsDeliverable() noexcept {
  if (apic_->HasEvent()) return true;
  return apic_->NextInterrupt().has_value() && vcpu().run().if_flag != 0;
}

bool UpperLevel::PrepareEntry() noexcept {
  moves_before_ = environment_->view.moves();
  apic_->RunPending();
  // Nobody specifies INIT, SIPI, SMI or ExtINT for a level above VTL0: they do nothing to its processor.
  (void)apic_->TakeInit();
  (void)apic_->TakeStartup();
  (void)apic_->TakeSmi();
  (void)apic_->TakeExtInt();
  if (apic_->TakeNmi() && !vcpu().Nmi()) {
    processor_->Fail("KVM takes no NMI");
    return false;
  }
  window_ = false;
  auto next = apic_->NextInterrupt();
  if (next.has_value() && vcpu().run().ready_for_interrupt_injection != 0) {
    // What the last exit left could yet become an exception, and of the two one would be lost.
    if (!processor_->Settle()) return false;
    if (vcpu().run().ready_for_interrupt_injection != 0) {
      if (!vcpu().Interrupt(*next)) {
        processor_->Fail("KVM takes no interrupt");
        return false;
      }
      apic_->Accept(*next);
      // Its word of the last exit is used up.
      vcpu().run().ready_for_interrupt_injection = 0;
      next = apic_->NextInterrupt();
    }
  }
  window_ = next.has_value();
  vcpu().run().request_interrupt_window = window_ ? 1 : 0;
  vcpu().run().cr8 = apic_->cr8();
  return true;
}

bool UpperLevel::Arm(Use use) noexcept {
  const bool only_events = (use == Use::kRuns && window_) || (use == Use::kWaits && vcpu().run().if_flag == 0);
  return only_events ? apic_->ArmForWindow() : apic_->Arm();
}

void UpperLevel::AfterExit() noexcept {
  apic_->Disarm();
  apic_->SyncCr8(vcpu().run().cr8);
}

void UpperLevel::RaiseVina(const VinaInterrupt& vina) noexcept {
  sints_->SetAutoEoi(vina.auto_eoi ? std::optional<uint8_t>(vina.vector) : std::nullopt);
  apic_->Post(ApicDeliveryMode::kFixed, vina.vector);
}

void UpperLevel::SendInterrupt(VpIndex vp, uint8_t vector) noexcept {
  environment_->apics.Send({.mode = ApicDeliveryMode::kFixed,
                            .vector = vector,
                            .destination = {.number = vp.raw(), .is_logical = false, .is_broadcast = false},
                            .but_sender = false,
                            .sender = vp_.raw()});
}

// As HypervProcessor::FlushTlb, in this level's VM.
void UpperLevel::FlushTlb() noexcept {
  const Gpfn page = environment_->partition.hypercall_page();
  const MutexLock lock(environment_->flush);
  (void)vcpu().PreFault(Gpa(page), kPageBytes);
  (void)environment_->view.DropPage(page);
}

bool UpperLevel::RunOn(VpIndex vp, absl::FunctionRef<void()> work) noexcept {
  return environment_->requests.RunOn(vp_.raw(), vp.raw(), work);
}

}  // namespace vmm
