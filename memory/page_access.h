// What the host mapping behind a page of guest RAM lets KVM, and so the guest, do with it.
//
// Execution is not told from reading: nothing that a host mapping says denies it.
#ifndef VMM_MEMORY_PAGE_ACCESS_H_
#define VMM_MEMORY_PAGE_ACCESS_H_

#include <cstdint>

namespace vmm {

enum class PageAccess : uint8_t {
  kReadWrite = 0,  // and execute
  kRead = 1,       // and execute
  kNone = 2,
};

}  // namespace vmm

#endif  // VMM_MEMORY_PAGE_ACCESS_H_
