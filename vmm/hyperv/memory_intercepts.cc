#include "vmm/hyperv/memory_intercepts.h"

#include <algorithm>
#include <optional>

#include "devices/hyperv/vsm/intercept_messages.h"
#include "memory/page_rights.h"
#include "vmm/hyperv/enforced_view.h"
#include "vmm/hyperv/refused_access.h"
#include "vmm/hyperv/string_targets.h"
#include "vmm/hyperv/vcpu_state.h"

namespace vmm {
namespace {

void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

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
  const EnforcedView view(environment_.protections, environment_.view, vtl_);
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

AccessDecoding MemoryIntercepts::Decode(const AccessRegisters& registers) const noexcept {
  const EnforcedView view(environment_.protections, environment_.view, vtl_);
  VcpuVectors vectors(environment_.processor.vcpu(vtl_.raw()));
  return DecodeAccess(registers, environment_.memory, view, vectors);
}

bool MemoryIntercepts::IsOnOverlay(const AccessDecoding& decoding) const noexcept {
  return decoding.finding == AccessFinding::kViolation && environment_.view.OverlayAt(decoding.violation.gpa.page()).has_value();
}

bool MemoryIntercepts::OnFault() noexcept {
  kvm::Vcpu& vcpu = environment_.processor.vcpu(vtl_.raw());
  const AccessDecoding decoding = Explain(vcpu);
  switch (decoding.finding) {
    case AccessFinding::kViolation:
      if (IsOnOverlay(decoding)) return false;  // the guest's own fault
      if (Tell(vcpu, decoding.violation)) return true;
      break;
    case AccessFinding::kNone:
    case AccessFinding::kGuestFault: break;
    case AccessFinding::kUnknown: Count(counters_.unknown); break;
  }
  return TryAgain(vcpu.synced_regs().rip);
}

bool MemoryIntercepts::TellIfRefused(const AccessRegisters& registers) noexcept {
  const AccessDecoding decoding = Decode(registers);
  if (decoding.finding != AccessFinding::kViolation || IsOnOverlay(decoding)) return false;
  return Tell(environment_.processor.vcpu(vtl_.raw()), decoding.violation);
}

bool MemoryIntercepts::TryAgain(uint64_t rip) noexcept {
  // A change of protections that is under way takes as long as it takes (a page moves, the host looks for memory).
  const uint64_t changes = environment_.protections.changes();
  const bool same = rip == last_rip_ && changes == last_changes_ && changes % 2 == 0;
  tries_ = same ? tries_ + 1 : 0;
  last_rip_ = rip;
  last_changes_ = changes;
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
          .held = counters_.held.load(std::memory_order_relaxed),
          .named = counters_.named.load(std::memory_order_relaxed),
          .other_first = counters_.other_first.load(std::memory_order_relaxed),
          .unexplained = counters_.unexplained.load(std::memory_order_relaxed)};
}

AccessAnswer MemoryIntercepts::OnEmulatedAccess(Gpa gpa, std::span<std::byte> data, bool write) noexcept {
  const bool ram = environment_.memory.Contains(gpa, 1);
  if (!ram && (write || !environment_.protections.any())) return AccessAnswer::kUnclaimed;
  kvm::Vcpu& vcpu = environment_.processor.vcpu(vtl_.raw());
  if (ram && write) {
    // A page of ours that the level may only read is not for a level above to allow, and the instruction is over: nothing is stored.
    if (environment_.view.OverlayAt(gpa.page())) return AccessAnswer::kDone;
    Count(counters_.emulated);
    Hold(gpa, data);
    return AccessAnswer::kDone;
  }
  // Nothing of this iteration has happened yet. Of a device's memory all but this read may be refused; of RAM, this one was.
  const AccessRegisters registers = AccessRegistersOf(vcpu);
  const AccessDecoding decoding = Decode(registers);
  AccessViolation violation = decoding.violation;
  const bool on_overlay = IsOnOverlay(decoding);
  bool told = decoding.finding == AccessFinding::kViolation && !on_overlay && Tell(vcpu, violation);
  if (!told && !ram) return AccessAnswer::kUnclaimed;
  if (!told && (on_overlay || decoding.finding == AccessFinding::kUnknown)) {
    violation = {};
    violation.gpa = gpa;
    told = Tell(vcpu, violation);
  }
  if (told) {
    Count(counters_.emulated);
  } else if (!TryAgain(registers.rip)) {  // it would be allowed by now
    std::ranges::fill(data, std::byte{0xff});
    return AccessAnswer::kDone;
  }
  const EnforcedView view(environment_.protections, environment_.view, vtl_);
  LoadStringTargets(registers, environment_.memory, view, data.size(), data);
  return AccessAnswer::kNotMade;
}

AccessAnswer MemoryIntercepts::OnPortRead(const PortAccess& access, std::span<std::byte> data) noexcept {
  if (!environment_.protections.any()) return AccessAnswer::kUnclaimed;
  constexpr size_t kRdi = 7;
  constexpr uint64_t kRflagsDirection = 1 << 10;
  const AccessRegisters first = AccessRegistersOf(environment_.processor.vcpu(vtl_.raw()));
  const EnforcedView view(environment_.protections, environment_.view, vtl_);
  const InstructionShape shape = DescribeInstruction(first, environment_.memory, view);
  if (!shape.port_string || !shape.port_input) return AccessAnswer::kUnclaimed;
  // They lie in a row, not longer than a page: of those between the first and the last none is refused alone.
  AccessRegisters last = first;
  const uint64_t distance = uint64_t{access.bytes} * (access.count - 1);
  last.gpr[kRdi] += (first.rflags & kRflagsDirection) != 0 ? uint64_t{0} - distance : distance;
  if (!TellIfRefused(first) && (access.count == 1 || !TellIfRefused(last))) return AccessAnswer::kUnclaimed;
  Count(counters_.emulated);
  LoadStringTargets(first, environment_.memory, view, access.bytes, data);
  return AccessAnswer::kNotMade;
}

void MemoryIntercepts::Hold(Gpa gpa, std::span<const std::byte> data) noexcept {
  if (held_count_ < held_.size() && data.size() <= held_[0].data.size()) {
    Store& store = held_[held_count_++];
    store = {.gpa = gpa, .bytes = static_cast<uint8_t>(data.size()), .data = {}};
    std::ranges::copy(data, store.data.begin());
    Count(counters_.held);
  }
  // The others of the same instruction are told if they are still refused when this is not.
  if (held_count_ != 1) return;
  Resume();
}

void MemoryIntercepts::Resume() noexcept {
  size_t made = 0;
  for (uint32_t tries = 0; made < held_count_ && tries < kPatience;) {
    const Store& store = held_[made];
    if (environment_.level_memory.Write(store.gpa, std::span(store.data).first(store.bytes))) {
      ++made;
      continue;
    }
    AccessViolation violation;
    violation.gpa = store.gpa;
    violation.kind = AccessKind::kWrite;
    if (Tell(environment_.processor.vcpu(vtl_.raw()), violation)) break;
    // Nobody refuses it any more, or it is not RAM at its end and cannot be made.
    ++tries;
    if (!environment_.memory.Contains(store.gpa, store.bytes)) ++made;
  }
  std::copy(held_.begin() + static_cast<ptrdiff_t>(made), held_.begin() + static_cast<ptrdiff_t>(held_count_), held_.begin());
  held_count_ -= made;
}

}  // namespace vmm
