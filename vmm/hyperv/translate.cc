#include "vmm/hyperv/translate.h"

#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"

namespace vmm {
namespace {

using Code = HvTranslationCode;

constexpr uint64_t kRflagsAc = 1 << 18;

GvaTranslation Refused(Code code) noexcept { return {.status = HvStatus::kSuccess, .code = code}; }

WalkPrivilege PrivilegeOf(uint64_t flags, uint8_t cpl) noexcept {
  if ((flags & kHvTranslatePrivilegeExempt) != 0) return WalkPrivilege::kExempt;
  if ((flags & kHvTranslateUser) != 0) return WalkPrivilege::kUser;
  if ((flags & kHvTranslateSupervisor) == 0 && cpl == 3) return WalkPrivilege::kUser;
  return (flags & kHvTranslateEnforceSmap) != 0 ? WalkPrivilege::kSystem : WalkPrivilege::kSupervisor;
}

Code CodeOf(WalkFault fault) noexcept {
  switch (fault) {
    case WalkFault::kNone: return Code::kSuccess;
    case WalkFault::kNotPresent:
    case WalkFault::kNotCanonical: return Code::kPageNotPresent;
    case WalkFault::kProtection: return Code::kPrivilegeViolation;
    case WalkFault::kReservedBit: return Code::kInvalidPageTableFlags;
    case WalkFault::kTableNotRam: break;
  }
  return Code::kGpaUnmapped;
}

}  // namespace

GvaTranslation TranslatePage(const TranslationState& state, uint64_t flags, uint64_t guest_gva_page,
                             const GuestMemory& memory, const LevelView& view) noexcept {
  struct {
    uint64_t flag;
    WalkAccess access;
  } constexpr kAccesses[] = {{kHvTranslateValidateRead, WalkAccess::kRead},
                             {kHvTranslateValidateWrite, WalkAccess::kWrite},
                             {kHvTranslateValidateExecute, WalkAccess::kExecute}};
  PagingState paging = state.paging;
  if ((flags & kHvTranslateOverrideSmap) != 0) paging.rflags |= kRflagsAc;
  const WalkPrivilege privilege = PrivilegeOf(flags, state.cpl);
  GvaTranslation result{.status = HvStatus::kSuccess};
  for (const auto& each : kAccesses) {
    if ((flags & each.flag) == 0) continue;
    const PageWalk walk = WalkPageTables(memory, paging, guest_gva_page * kPageBytes, each.access, privilege);
    for (const TableAccess& table : walk.accesses()) {
      const PageRights rights = view.Rights(table.gpa.page());
      if (!rights.read()) return Refused(Code::kGpaNoReadAccess);
      if (table.write && (flags & kHvTranslateSetAccessedDirty) != 0 && !rights.write()) return Refused(Code::kGpaNoWriteAccess);
    }
    if (walk.fault != WalkFault::kNone) return Refused(CodeOf(walk.fault));
    if (!memory.Contains(walk.gpa, 1)) return Refused(Code::kGpaUnmapped);
    const PageRights rights = view.Rights(walk.gpa.page());
    if (!rights.read()) return Refused(Code::kGpaNoReadAccess);
    if (each.access == WalkAccess::kWrite && !rights.write()) return Refused(Code::kGpaNoWriteAccess);
    // Where an entry has changed meanwhile its bits are as the other processor left them.
    if ((flags & kHvTranslateSetAccessedDirty) != 0) (void)SetAccessedDirty(memory, walk);
    result.cache_type = static_cast<uint8_t>(state.pat >> 8 * walk.pat_index & 7);
    result.overlay = view.Overlay(walk.gpa.page()) != nullptr;
    result.gpa_page = walk.gpa.page().raw();
  }
  return result;
}

}  // namespace vmm
