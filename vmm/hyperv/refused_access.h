// Which access of a stopped level a level above refuses: the access decoder's answer, held against the page that KVM names, where
// it names one (docs/design.md, section 5: way B).
//
// KVM's word is of the page alone, but of what the processor did. The decoder's is of everything, but of what it finds by now.
//   1. A page that may be accessed by now says nothing any more: another processor has changed its protection, or is about to (the map
//      follows the view). The decoder's answer stands, which is what making the access again would come to. What is known of the page
//      is asked once, at first: else a change in the middle would look like a disagreement.
//   2. Both name one page: the decoder's answer.
//   3. The decoder's first refused access is on another page, but there is one on KVM's too: that one, since it is what was tried.
//      Processors need not make the accesses of one instruction in the decoder's order.
//   4. The decoder knows of no refused access on KVM's page. Another processor may have changed the instruction or page tables
//      meanwhile; or the decoder lacks something. Making the access again tells: whoever asks does so, and where it comes to the
//      same a few times in a row, or the decoder says itself that it does not know the instruction, KVM's word alone is told.
// So a refused access is told in the end by way B, whatever the decoder knows; 3 and 4 are to be counted.
//
// Threads  pure.
// Trust    registers, instruction and page tables are the guest's, KVM's word is not.
// Errors   none.
// Source   Linux, "The Definitive KVM API Documentation", KVM_EXIT_MEMORY_FAULT.
#ifndef VMM_VMM_HYPERV_REFUSED_ACCESS_H_
#define VMM_VMM_HYPERV_REFUSED_ACCESS_H_

#include <cstdint>
#include <optional>

#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {

enum class PageAgreement : uint8_t {
  kNotNamed,     // KVM names no page
  kOutdated,     // 1
  kSame,         // 2
  kOtherFirst,   // 3
  kUnexplained,  // 4
};

struct RefusedAccess {
  AccessDecoding decoding;  // kUnexplained: what the decoder found, which is nothing that explains the fault
  PageAgreement agreement = PageAgreement::kNotNamed;
};

// `event`: it was being delivered when the level stopped. `named`: KVM's page, which allows no access at all.
[[nodiscard]] RefusedAccess FindRefusedAccess(const AccessRegisters& registers, const std::optional<AccessEvent>& event,
                                              const GuestMemory& memory, const LevelView& view, VectorState& vectors,
                                              std::optional<Gpfn> named) noexcept;

// KVM's word alone: the page, no linear address; as a read, for it is not known which of the three it was, and all are refused. What
// the decoder knows of the instruction goes with it.
[[nodiscard]] AccessViolation ViolationAt(Gpfn named, const AccessDecoding& decoding) noexcept;

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_REFUSED_ACCESS_H_
