// Many checks, one line of output: a byte of output may cost a millisecond.
//
//   Tally tally;
//   OnAllCpus([&] { tally.Equal(ReadMsr(kMsr), 7, "the register"); });
//   EXPECT_TRUE(tally.ok());
//
// Threads  any. The first three failures have a line each.
#ifndef VMM_TESTS_GUESTS_RUNTIME_TALLY_H_
#define VMM_TESTS_GUESTS_RUNTIME_TALLY_H_

#include <cstdint>

#include "tests/guests/runtime/atomic.h"

namespace guest {

class Tally final {
 public:
  void Equal(uint64_t got, uint64_t want, const char* what);
  void True(bool value, const char* what) { Equal(value, true, what); }
  [[nodiscard]] bool ok_so_far() const { return failures_.Load() == 0; }
  // And there was something to fail.
  [[nodiscard]] bool ok() const { return ok_so_far() && checks_.Load() != 0; }

 private:
  Atomic<uint32_t> checks_;
  Atomic<uint32_t> failures_;
};

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_TALLY_H_
