#include "tests/guests/runtime/tally.h"

#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/smp.h"

namespace guest {

void Tally::Equal(uint64_t got, uint64_t want, const char* what) {
  checks_.Add(1);
  if (got == want || failures_.Add(1) >= 3) return;
  Line line;
  line << "# " << what << ": got ";
  line.Hex(got) << " want ";
  line.Hex(want) << " on processor " << ThisCpuNumber();
  Print(line);
}

}  // namespace guest
