// HvCallTranslateVirtualAddress: the page tables of a level, walked with its rights.
//
// Threads  the target VP's, outside the guest.
// Trust    flags have been checked for bits that there are; the page number and the tables are the guest's.
// Errors   a code in the result, as the specification has it; the call itself succeeds.
// Source   Hyper-V TLFS, "HvCallTranslateVirtualAddress".
//
// "Overlay page" is not reported. A range of CPL 3 or not is the level's own, unless a flag forces one.
#ifndef VMM_VMM_HYPERV_TRANSLATE_H_
#define VMM_VMM_HYPERV_TRANSLATE_H_

#include <cstdint>

#include "devices/hyperv/hypercall/vsm_services.h"
#include "memory/guest_memory.h"
#include "vcpu/access_decoder/access_decoder.h"
#include "vcpu/page_walk.h"

namespace vmm {

struct TranslationState {
  PagingState paging;
  uint64_t pat = 0;
  uint8_t cpl = 0;
};

// `view`: of the level whose tables these are.
[[nodiscard]] GvaTranslation TranslatePage(const TranslationState& state, uint64_t flags, uint64_t guest_gva_page,
                                           const GuestMemory& memory, const LevelView& view) noexcept;

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_TRANSLATE_H_
