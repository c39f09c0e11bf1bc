#include "vmm/hyperv/hyperv_processor.h"

#include "base/status_macros.h"
#include "devices/hyperv/vsm/msr_intercepts.h"
#include "memory/gpa.h"
#include "vmm/hyperv/guest_msrs.h"
#include "vmm/hyperv/initial_context.h"

namespace vmm {

HypervProcessor::~HypervProcessor() {
  vp_.reset();
  environment_.loop.RunThere([this] { deadline_.reset(); });
}

absl::Status HypervProcessor::Finish(VirtualProcessor& processor, const HvOffer& offer, const Interface& interface) {
  processor_ = &processor;
  partition_ = &interface.partition;
  intercepts_ = interface.intercepts;
  accesses_ = interface.accesses;
  environment_.requests.SetKick(index_, processor);
  absl::Status status;
  environment_.loop.RunThere([&] {
    auto deadline = TimerfdDeadline::Create(environment_.loop.loop(), interface.clock, [this] { vp_->NotifyDeadline(); });
    status = deadline.status();
    if (status.ok()) deadline_ = *std::move(deadline);
  });
  RETURN_IF_ERROR(status);
  sints_.emplace(environment_.vm, processor.vcpu(), interface.eoi_watch, [this] { AfterInterrupt(); });
  const HvVp::Environment environment{.partition = interface.partition,
                                      .connections = interface.connections,
                                      .vps = interface.vps,
                                      .host = *this,
                                      .starter = *this,
                                      .clock = interface.clock,
                                      .memory = interface.memory,
                                      .overlays = interface.overlays,
                                      .sints = *sints_,
                                      .vectors = *this,
                                      .deadline = *deadline_,
                                      .kick = processor,
                                      .kernel_timers = interface.kernel_timers ? this : nullptr,
                                      .levels = interface.levels};
  ASSIGN_OR_RETURN(vp_, HvVp::Create(VpIndex(index_), kVtl0, offer, environment));
  return absl::OkStatus();
}

// What is not the interface's has left the guest because another processor's accesses are told of.
bool HypervProcessor::ReadMsr(uint32_t msr, uint64_t& value) noexcept {
  if (accesses_ == nullptr || !CrEventOf(msr, /*write=*/true)) return vp_->ReadMsr(msr, value);
  return ReadMsrAsGuest(processor_->vcpu(), msr, value);
}

bool HypervProcessor::WriteMsr(uint32_t msr, uint64_t value) noexcept {
  if (accesses_ == nullptr || !CrEventOf(msr, /*write=*/true)) return vp_->WriteMsr(msr, value);
  return WriteMsrAsGuest(processor_->vcpu(), msr, value);
}

AccessAnswer HypervProcessor::AccessPort(const PortAccess& access, std::span<std::byte> data) noexcept {
  if (accesses_ == nullptr) return AccessAnswer::kUnclaimed;
  const AccessAnswer answer = accesses_->OnPort(access, data);
  return answer == AccessAnswer::kUnclaimed && !access.write ? intercepts_->OnPortRead(access, data) : answer;
}

bool HypervProcessor::PrepareEntry() noexcept {
  if (intercepts_ != nullptr) intercepts_->Resume();
  if (accesses_ != nullptr) accesses_->Resume();
  return true;
}

void HypervProcessor::OnRedirected() noexcept {
  if (intercepts_ != nullptr) intercepts_->Forget();
  if (accesses_ != nullptr) accesses_->Forget();
}

void HypervProcessor::PrepareToEnter() noexcept {
  // What others want of this processor may need its registers, which are settled only between two instructions.
  if (environment_.requests.HasWork(index_) && processor_->Settle()) environment_.requests.Serve(index_);
  vp_->PrepareToEnter();
}

void HypervProcessor::Watch(bool on) noexcept {
  constexpr uint64_t kRflagsIf = 1 << 9;
  // With interrupts off nothing that comes can be taken, until a level above changes that.
  on = on && (processor_->vcpu().synced_regs().rflags & kRflagsIf) != 0;
  if (on != watched_.load(std::memory_order_relaxed)) watched_.store(on, std::memory_order_seq_cst);
}

bool HypervProcessor::IsDeliverable() noexcept { return processor_->vcpu().HasDeliverableInterrupt(); }

bool HypervProcessor::AssertInterrupt(const VsmServices::Interrupt& interrupt) noexcept {
  constexpr uint8_t kNmi = 4, kFixed = 0;
  if (interrupt.destination > 0xff) return false;
  // False: nobody receives it, and it is lost as it would be on the bus.
  (void)environment_.vm.SignalMsi({.destination = static_cast<uint8_t>(interrupt.destination),
                                   .logical = interrupt.logical,
                                   .level = interrupt.level,
                                   .delivery_mode = interrupt.nmi ? kNmi : kFixed,
                                   .vector = interrupt.vector});
  for (const auto& processor : environment_.processors) processor->AfterInterrupt();
  return true;
}

void HypervProcessor::SendInterrupt(VpIndex vp, uint8_t vector) noexcept {
  // False: its local APIC is off, and the interrupt is lost as it would be on the bus.
  (void)environment_.vm.SignalMsi(vp.raw(), vector);
  if (vp.raw() < vp_count()) environment_.processors[vp.raw()]->AfterInterrupt();
}

// KVM has no call that flushes a guest's TLB. But when it forgets a page that it has mapped for the guest, it flushes them all, on
// every processor, and waits for them. Any page will do that nobody else makes it forget between the two calls; the hypercall
// page is one that surely exists.
void HypervProcessor::FlushTlb() noexcept {
  const Gpfn page = partition_->hypercall_page();
  const MutexLock lock(environment_.flush);
  (void)processor_->vcpu().PreFault(Gpa(page), kPageBytes);
  (void)environment_.view.DropPage(page);
}

bool HypervProcessor::RunOn(VpIndex vp, absl::FunctionRef<void()> work) noexcept {
  return environment_.requests.RunOn(index_, vp.raw(), work);
}

HvStatus HypervProcessor::Start(VpIndex vp, const HvInitialVpContext& context) noexcept {
  if (vp.raw() >= vp_count()) return HvStatus::kInvalidVpIndex;
  kvm::Vcpu& vcpu = environment_.processors[vp.raw()]->processor_->vcpu();
  HvStatus status = HvStatus::kOperationFailed;
  (void)RunOn(vp, [&] { status = StartWithContext(vcpu, context); });
  return status;
}

void HypervProcessor::RaiseVector(uint8_t vector) noexcept { (void)environment_.vm.SignalMsi(index_, vector); }

bool HypervProcessor::SetMsr(uint32_t msr, uint64_t value) noexcept { return processor_->vcpu().SetMsr(msr, value); }

bool HypervProcessor::GetMsr(uint32_t msr, uint64_t& value) noexcept {
  const auto got = processor_->vcpu().GetMsr(msr);
  if (got.ok()) value = *got;
  return got.ok();
}

}  // namespace vmm
