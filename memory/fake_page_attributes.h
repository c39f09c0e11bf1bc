// A VM's page attributes for tests: remembers which pages are private, and refuses when told to.
#ifndef VMM_MEMORY_FAKE_PAGE_ATTRIBUTES_H_
#define VMM_MEMORY_FAKE_PAGE_ATTRIBUTES_H_

#include <cstdint>
#include <limits>
#include <set>

#include "memory/gpa.h"
#include "memory/page_attributes.h"

namespace vmm {

class FakePageAttributes final : public PageAttributes {
 public:
  bool SetPrivate(Gpfn first, uint64_t pages, bool is_private) noexcept override {
    ++calls;
    if (calls_until_refusal-- == 0) return false;
    if (!is_private) {
      private_pages.erase(private_pages.lower_bound(first.raw()), private_pages.lower_bound(first.raw() + pages));
      return true;
    }
    for (uint64_t page = first.raw(); page < first.raw() + pages; ++page) private_pages.insert(page);
    return true;
  }

  std::set<uint64_t> private_pages;
  int calls = 0;
  int calls_until_refusal = std::numeric_limits<int>::max();  // refuses once when it comes to 0
};

}  // namespace vmm

#endif  // VMM_MEMORY_FAKE_PAGE_ATTRIBUTES_H_
