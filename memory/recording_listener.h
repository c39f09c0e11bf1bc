// A listener of protections that keeps what it is told. For tests.
#ifndef VMM_MEMORY_RECORDING_LISTENER_H_
#define VMM_MEMORY_RECORDING_LISTENER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "memory/protection_map.h"

namespace vmm {

class RecordingListener final : public ProtectionMap::Listener {
 public:
  struct Change {
    unsigned level;
    uint64_t first, pages;
    uint8_t before, after;
    bool operator==(const Change&) const = default;
  };
  void OnChange(unsigned level, Gpfn first, uint64_t pages, PageRights before, PageRights after) noexcept override {
    changes_.push_back({level, first.raw(), pages, before.bits(), after.bits()});
  }
  std::vector<Change> Take() { return std::exchange(changes_, {}); }

 private:
  std::vector<Change> changes_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_RECORDING_LISTENER_H_
