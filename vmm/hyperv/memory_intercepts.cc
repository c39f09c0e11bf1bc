#include "vmm/hyperv/memory_intercepts.h"

#include <algorithm>
#include <array>
#include <optional>

#include "devices/hyperv/vsm/intercept_messages.h"
#include "memory/page_rights.h"
#include "vmm/hyperv/refused_access.h"
#include "vmm/hyperv/vcpu_state.h"

namespace vmm {
namespace {

void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

constexpr PageRights kReadExecute(PageRights::kRead | PageRights::kKernelExecute | PageRights::kUserExecute);

// Memory as the level sees it: protections as they are enforced, and the pages of ours that it may only read.
class EnforcedView final : public LevelView {
 public:
  EnforcedView(const ProtectionEnforcer& protections, const HvPartition& partition, Vtl vtl) noexcept
      : protections_(protections), partition_(partition), vtl_(vtl) {}
  [[nodiscard]] PageRights Rights(Gpfn page) const noexcept override {
    return partition_.IsReadOnlyPage(page) ? kReadExecute : protections_.Enforced(vtl_.raw(), page);
  }
  [[nodiscard]] const std::byte* Overlay(Gpfn page) const noexcept override { return partition_.HypercallPageAt(page); }

 private:
  const ProtectionEnforcer& protections_;
  const HvPartition& partition_;
  const Vtl vtl_;
};

PageRights NeededFor(AccessKind kind) noexcept {
  switch (kind) {
    case AccessKind::kRead: return PageRights(PageRights::kRead);
    case AccessKind::kWrite: return PageRights(PageRights::kRead | PageRights::kWrite);
    case AccessKind::kExecute: break;
  }
  return PageRights(PageRights::kKernelExecute | PageRights::kUserExecute);
}

}  // namespace

AccessDecoding MemoryIntercepts::Explain(kvm::Vcpu& vcpu) noexcept {
  const EnforcedView view(environment_.protections, environment_.partition, vtl_);
  VcpuVectors vectors(vcpu);
  std::optional<Gpfn> named;
  if (const auto fault = vcpu.memory_fault()) named = fault->gpa.page();
  RefusedAccess found = FindRefusedAccess(AccessRegistersOf(vcpu), EventOf(vcpu), environment_.memory, view, vectors, named);
  if (found.agreement != PageAgreement::kNotNamed) Count(counters_.named);
  if (found.agreement == PageAgreement::kOtherFirst) Count(counters_.other_first);
  if (found.agreement != PageAgreement::kUnexplained) return found.decoding;
  Count(counters_.unexplained);
  const uint64_t rip = vcpu.synced_regs().rip;
  unexplained_tries_ = rip == unexplained_rip_ ? unexplained_tries_ + 1 : 1;
  unexplained_rip_ = rip;
  if (found.decoding.finding == AccessFinding::kUnknown || unexplained_tries_ >= kUnexplainedTries) {
    unexplained_tries_ = 0;
    found.decoding.violation = ViolationAt(*named, found.decoding);
    found.decoding.finding = AccessFinding::kViolation;
  } else {
    found.decoding.finding = AccessFinding::kNone;
  }
  return found.decoding;
}

bool MemoryIntercepts::OnFault() noexcept {
  kvm::Vcpu& vcpu = environment_.processor.vcpu(vtl_.raw());
  const AccessDecoding decoding = Explain(vcpu);
  switch (decoding.finding) {
    case AccessFinding::kViolation:
      // A page of ours is not for a level to allow: the guest's own fault.
      if (environment_.partition.IsReadOnlyPage(decoding.violation.gpa.page())) return false;
      if (Tell(vcpu, decoding.violation)) return true;
      break;
    case AccessFinding::kNone:
    case AccessFinding::kGuestFault: break;
    case AccessFinding::kUnknown: Count(counters_.unknown); break;
  }
  return TryAgain(vcpu.synced_regs().rip);
}

bool MemoryIntercepts::TryAgain(uint64_t rip) noexcept {
  tries_ = rip == last_rip_ ? tries_ + 1 : 0;
  last_rip_ = rip;
  Count(counters_.again);
  return tries_ < kPatience;
}

bool MemoryIntercepts::Tell(kvm::Vcpu& vcpu, const AccessViolation& violation) noexcept {
  const Gpfn page = violation.gpa.page();
  const ProtectionMap& map = environment_.protections.map();
  auto owner = map.RefusingOwner(vtl_.raw(), page, NeededFor(violation.kind));
  // A page table that may only be read stops the processor's reading of it.
  if (!owner) owner = map.RefusingOwner(vtl_.raw(), page, NeededFor(AccessKind::kWrite));
  if (!owner) return false;
  Synic* const synic = environment_.synic_of(Vtl(static_cast<uint8_t>(*owner)));
  if (synic == nullptr) return false;
  InterceptedState state = InterceptedStateOf(vcpu, vp_, vtl_);
  state.instruction_length = violation.instruction_length;
  std::array<uint8_t, 16> bytes{};
  std::transform(violation.bytes.begin(), violation.bytes.end(), bytes.begin(),
                 [](std::byte byte) { return static_cast<uint8_t>(byte); });
  const InterceptedAccess access{.access = static_cast<HvInterceptAccess>(violation.kind),
                                 .gpa = violation.gpa,
                                 .gva = violation.gva,
                                 .instruction = std::span(bytes).first(violation.byte_count)};
  // One is on its way already only where the level has been given no chance to take it: it will.
  (void)synic->PostIntercept(Poster::OfVp(vp_), Sint::Of<0>(), MakeMemoryIntercept(state, access));
  environment_.scheduler.SuspendForIntercept();
  tries_ = 0;
  Count(counters_.told[static_cast<size_t>(violation.kind)]);
  return true;
}

MemoryIntercepts::Stats MemoryIntercepts::stats() const noexcept {
  const auto told = [this](AccessKind kind) { return counters_.told[static_cast<size_t>(kind)].load(std::memory_order_relaxed); };
  return {.reads = told(AccessKind::kRead),
          .writes = told(AccessKind::kWrite),
          .executes = told(AccessKind::kExecute),
          .again = counters_.again.load(std::memory_order_relaxed),
          .unknown = counters_.unknown.load(std::memory_order_relaxed),
          .emulated = counters_.emulated.load(std::memory_order_relaxed),
          .named = counters_.named.load(std::memory_order_relaxed),
          .other_first = counters_.other_first.load(std::memory_order_relaxed),
          .unexplained = counters_.unexplained.load(std::memory_order_relaxed)};
}

bool MemoryIntercepts::OnEmulatedAccess(Gpa gpa, std::span<std::byte> data, bool write) noexcept {
  if (!environment_.memory.Contains(gpa, 1)) return false;
  std::ranges::fill(data, std::byte{0xff});
  Count(counters_.emulated);
  AccessViolation violation;
  violation.gpa = gpa;
  violation.kind = write ? AccessKind::kWrite : AccessKind::kRead;
  (void)Tell(environment_.processor.vcpu(vtl_.raw()), violation);
  return true;
}

}  // namespace vmm
