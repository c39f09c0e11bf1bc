// What a level's VM knows of its pages beyond their mapping: KVM's PRIVATE attribute.
//
// Threads  one call at a time.
// Errors   false: the kernel could not, and nothing has changed.
#ifndef VMM_MEMORY_PAGE_ATTRIBUTES_H_
#define VMM_MEMORY_PAGE_ATTRIBUTES_H_

#include <cstdint>

#include "memory/gpa.h"

namespace vmm {

class PageAttributes {
 public:
  virtual ~PageAttributes() = default;
  // Private: every access of a processor to these pages of RAM leaves KVM with the page's address. At its return no processor uses
  // what was before.
  [[nodiscard]] virtual bool SetPrivate(Gpfn first, uint64_t pages, bool is_private) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_MEMORY_PAGE_ATTRIBUTES_H_
