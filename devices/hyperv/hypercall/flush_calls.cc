// Each flush is one of everything that the caller's level has cached, on all processors: more than asked is always legal, and KVM
// gives user space no narrower one. So address spaces and processors only have to be well-formed. A higher level that holds a
// lock on these translations, on any other processor, makes every flush wait: it is not known whom a flush spares.
#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_targets.h"
#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm::hypercalls {
namespace {

constexpr uint64_t kSpaceFlags = kHvFlushAllProcessors | kHvFlushAllAddressSpaces | kHvFlushNonGlobalOnly;
constexpr uint64_t kListFlags = kHvFlushAllProcessors | kHvFlushAllAddressSpaces | kHvFlushExtendedRanges;

HvStatus CheckTargets(uint64_t flags, uint64_t allowed_flags, const VpSet& processors) noexcept {
  if ((flags & ~allowed_flags) != 0) return HvStatus::kInvalidParameter;
  // KVM takes an empty mask for "all"; the TLFS does not.
  if ((flags & kHvFlushAllProcessors) == 0 && processors.empty()) return HvStatus::kInvalidParameter;
  return HvStatus::kSuccess;
}

// With "all processors" the set's format means nothing; that its banks are there is still a matter of the call's shape.
SparseVpSet ReadTargets(const HypercallCall& call, const HvFlushExInput& input) noexcept {
  SparseVpSet sparse = ReadVpSet(call, input.processors);
  if (sparse.status == HvStatus::kInvalidParameter && (input.flags & kHvFlushAllProcessors) != 0) {
    return {HvStatus::kSuccess, VpSet::All()};
  }
  return sparse;
}

bool IsWellFormed(HvGvaRange range, uint64_t flags) noexcept {
  const bool large = (flags & kHvFlushExtendedRanges) != 0 && (range & kHvGvaRangeLarge) != 0;
  return !large || (range & kHvGvaRangeLargeReserved) == 0;
}

HvStatus Flush(HypercallCall& call) noexcept {
  VsmServices* const vsm = call.caller().vsm();
  if (vsm != nullptr && vsm->MustWaitForTlbLock()) {
    call.Block();
  } else {
    call.host().FlushTlb();
  }
  return HvStatus::kSuccess;
}

// The elements before a bad one are flushed: the caller is told that they were.
HvStatus FlushList(HypercallCall& call, uint64_t flags) noexcept {
  HvStatus status = HvStatus::kSuccess;
  bool any = false;
  for (; call.HasRep(); call.CompleteRep()) {
    if (!IsWellFormed(call.Element<HvGvaRange>(), flags)) {
      status = HvStatus::kInvalidParameter;
      break;
    }
    any = true;
  }
  if (any) (void)Flush(call);
  return status;
}

}  // namespace

HvStatus FlushVirtualAddressSpace(HypercallCall& call) noexcept {
  const auto input = call.Header<HvFlushInput>();
  const HvStatus status = CheckTargets(input.flags, kSpaceFlags, VpSet::FromMask(input.processor_mask));
  return status == HvStatus::kSuccess ? Flush(call) : status;
}

HvStatus FlushVirtualAddressList(HypercallCall& call) noexcept {
  const auto input = call.Header<HvFlushInput>();
  const HvStatus status = CheckTargets(input.flags, kListFlags, VpSet::FromMask(input.processor_mask));
  return status == HvStatus::kSuccess ? FlushList(call, input.flags) : status;
}

HvStatus FlushVirtualAddressSpaceEx(HypercallCall& call) noexcept {
  const auto input = call.Header<HvFlushExInput>();
  const SparseVpSet sparse = ReadTargets(call, input);
  if (sparse.status != HvStatus::kSuccess) return sparse.status;
  const HvStatus status = CheckTargets(input.flags, kSpaceFlags, sparse.set);
  return status == HvStatus::kSuccess ? Flush(call) : status;
}

HvStatus FlushVirtualAddressListEx(HypercallCall& call) noexcept {
  const auto input = call.Header<HvFlushExInput>();
  const SparseVpSet sparse = ReadTargets(call, input);
  if (sparse.status != HvStatus::kSuccess) return sparse.status;
  const HvStatus status = CheckTargets(input.flags, kListFlags, sparse.set);
  return status == HvStatus::kSuccess ? FlushList(call, input.flags) : status;
}

}  // namespace vmm::hypercalls
