// Levels, protections, and what a higher level does to a lower one. All of them are behind HvPrivilege::kVsm, so that
// HypercallCall::vsm() is there.
//
// A wrong partition is ACCESS_DENIED where another's memory or processors would be touched, INVALID_PARTITION_ID else, as OpenVMM
// has it.
#include <algorithm>
#include <array>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_targets.h"
#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm::hypercalls {
namespace {

constexpr uint32_t kLastVector = 0xff;
constexpr uint64_t kLastPort = 0xffff;

// No enabled level but VTL0 is below the caller.
bool IsNextAboveVtl0(const HypercallCall& call) noexcept {
  const Vtl caller = call.caller().vtl;
  for (uint8_t vtl = 1; vtl < caller.raw(); ++vtl) {
    if (call.vsm().IsVtlEnabled(Vtl(vtl))) return false;
  }
  return caller != kVtl0;
}

// The level whose protections are meant restricts those below it. VTL0 has none below; but some guests name the level that is to
// be restricted, and where the caller restricts VTL0 alone, both mean the same.
VtlTarget ResolveOwner(const HypercallCall& call, uint8_t guest_input_vtl) noexcept {
  const VtlTarget named = ResolveInputVtl(call, guest_input_vtl);
  if (named.status == HvStatus::kSuccess && named.vtl == kVtl0 && IsNextAboveVtl0(call)) {
    return {HvStatus::kSuccess, call.caller().vtl};
  }
  return named;
}

// What the two forms of TranslateVirtualAddress have in common.
GvaTranslation TranslateFor(const HypercallCall& call) noexcept {
  const auto input = call.Header<HvTranslateInput>();
  if (!IsOwnPartition(call, input.partition_id)) return {HvStatus::kAccessDenied};
  const VpTarget vp = ResolveVp(call, input.vp_index);
  if (vp.status != HvStatus::kSuccess) return {vp.status};
  if (input.reserved != 0) return {HvStatus::kInvalidParameter};
  // The caller's own level too, as the TLFS allows (OpenVMM: strictly lower ones).
  const VtlTarget vtl = ResolveInputVtl(call, static_cast<uint8_t>(input.control_flags >> kHvTranslateInputVtlShift));
  if (vtl.status != HvStatus::kSuccess) return {vtl.status};
  const uint64_t flags = input.control_flags & ~(uint64_t{0xff} << kHvTranslateInputVtlShift);
  if ((flags & ~kHvTranslateKnown) != 0 || (flags & kHvTranslateValidate) == 0) return {HvStatus::kInvalidParameter};
  return call.vsm().Translate(vp.vp, vtl.vtl, flags, input.gva_page);
}

HvTranslateOutput MakeOutput(const GvaTranslation& translation) noexcept {
  return {.result = static_cast<uint64_t>(translation.code) |
                    uint64_t{translation.cache_type} << kHvTranslationCacheTypeShift |
                    (translation.overlay ? kHvTranslationOverlay : 0),
          .gpa_page = translation.code == HvTranslationCode::kSuccess ? translation.gpa_page : 0};
}

}  // namespace

HvStatus ModifyVtlProtectionMask(HypercallCall& call) noexcept {
  const auto input = call.Header<HvModifyVtlProtectionInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kAccessDenied;
  const VtlTarget owner = ResolveOwner(call, input.target_vtl);
  if (owner.status != HvStatus::kSuccess) return owner.status;
  if (!IsZero(input.reserved)) return HvStatus::kInvalidParameter;
  const HvStatus allowed = call.vsm().CheckProtection(owner.vtl, input.flags);
  if (allowed != HvStatus::kSuccess) return allowed;
  while (call.HasRep()) {
    std::array<uint64_t, kHvProtectedPagesAtOnce> pages;
    size_t count = 0;
    for (; count < pages.size() && call.reps_left() > count; ++count) pages[count] = call.Element<uint64_t>(count);
    const PageProtection made = call.vsm().Protect(owner.vtl, input.flags, std::span(pages).first(count));
    for (size_t done = 0; done < std::min<size_t>(made.done, count); ++done) call.CompleteRep();
    if (made.status != HvStatus::kSuccess) return made.status;
    if (made.done < count) return HvStatus::kOperationFailed;  // said to be done, and is not
  }
  return HvStatus::kSuccess;
}

HvStatus EnablePartitionVtl(HypercallCall& call) noexcept {
  const auto input = call.Header<HvEnablePartitionVtlInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kInvalidPartitionId;
  if (!IsZero(input.reserved)) return HvStatus::kInvalidParameter;
  return call.vsm().EnablePartitionVtl(input.target_vtl, input.flags);
}

HvStatus EnableVpVtl(HypercallCall& call) noexcept {
  const auto input = call.Header<HvStartVirtualProcessorInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kInvalidPartitionId;
  const VpTarget vp = ResolveVp(call, input.vp_index);
  if (vp.status != HvStatus::kSuccess) return vp.status;
  if (!IsZero(input.reserved)) return HvStatus::kInvalidParameter;
  return call.vsm().EnableVpVtl(vp.vp, input.target_vtl, input.context);
}

HvStatus TranslateVirtualAddress(HypercallCall& call) noexcept {
  const GvaTranslation translation = TranslateFor(call);
  if (translation.status == HvStatus::kSuccess) call.PutOutput(MakeOutput(translation));
  return translation.status;
}

// The result has room for an event that the access would raise: none is ever told, and the code alone says why it failed.
HvStatus TranslateVirtualAddressEx(HypercallCall& call) noexcept {
  const GvaTranslation translation = TranslateFor(call);
  if (translation.status != HvStatus::kSuccess) return translation.status;
  const HvTranslateOutput output = MakeOutput(translation);
  call.PutOutput(HvTranslateExOutput{.result = output.result, .reserved0 = 0, .event = {}, .gpa_page = output.gpa_page,
                                     .reserved1 = 0});
  return HvStatus::kSuccess;
}

// Fixed interrupts and NMIs to strictly lower levels, as OpenVMM.
HvStatus AssertVirtualInterrupt(HypercallCall& call) noexcept {
  const auto input = call.Header<HvAssertVirtualInterruptInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kInvalidPartitionId;
  if ((input.control & kHvInterruptControlReserved) != 0) return HvStatus::kInvalidParameter;
  const VtlTarget vtl = ResolveVtl(call, input.target_vtl);
  if (vtl.status != HvStatus::kSuccess) return vtl.status;
  if (vtl.vtl == call.caller().vtl) return HvStatus::kAccessDenied;
  if (input.reserved0 != 0 || input.reserved1 != 0) return HvStatus::kInvalidParameter;
  const auto type = static_cast<uint32_t>(input.control);
  const bool nmi = type == kHvInterruptNmi;
  if (!nmi && type != kHvInterruptFixed) return HvStatus::kInvalidParameter;
  if (!nmi && (input.vector < kHvFirstVector || input.vector > kLastVector)) return HvStatus::kInvalidParameter;
  return call.vsm().AssertInterrupt(vtl.vtl, {.nmi = nmi,
                                              .level = (input.control & kHvInterruptControlLevel) != 0,
                                              .logical = (input.control & kHvInterruptControlLogical) != 0,
                                              .vector = nmi ? uint8_t{0} : static_cast<uint8_t>(input.vector),
                                              .destination = input.destination});
}

// I/O ports only, and from a higher level only, as OpenVMM.
HvStatus InstallIntercept(HypercallCall& call) noexcept {
  const auto input = call.Header<HvInstallInterceptInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kInvalidPartitionId;
  if (call.caller().vtl == kVtl0) return HvStatus::kAccessDenied;
  if (input.type != kHvInterceptIoPort || input.parameter > kLastPort) return HvStatus::kInvalidParameter;
  if ((input.access & ~(kHvInterceptRead | kHvInterceptWrite)) != 0) return HvStatus::kInvalidParameter;
  return call.vsm().InterceptIoPort(static_cast<uint16_t>(input.parameter), (input.access & kHvInterceptRead) != 0,
                                    (input.access & kHvInterceptWrite) != 0);
}

}  // namespace vmm::hypercalls
