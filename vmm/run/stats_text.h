// A machine's counters as lines of the log, for its end.
//
// Threads  pure.
//
// Who reads logs may rely on three of them, each on one line:
//   virtual processor 0: intercepts of VTL0: reads 1, writes 2, executes 3, retried 4; VTL calls 5, returns 6, pre-emptions 7
//   device 'block0': queues stopped for what was in them 1, restarts 2
//   page protections: 1 pages protected now, 1 withdrawn from devices, which have written to 1; pages set 2, rounded 3; calls refused 4
// What comes later is added at their ends. They are of level INFO where there was an intercept, a stopped queue, or a page was set or a call
// refused, and of level DEBUG elsewhere, as all others are.
#ifndef VMM_VMM_RUN_STATS_TEXT_H_
#define VMM_VMM_RUN_STATS_TEXT_H_

#include <string>
#include <vector>

#include "base/log.h"
#include "vmm/microvm_stats.h"

namespace vmm {

struct StatsLine {
  LogLevel level;
  std::string text;
};
[[nodiscard]] std::vector<StatsLine> StatsLines(const MicroVmStats& stats);

}  // namespace vmm

#endif  // VMM_VMM_RUN_STATS_TEXT_H_
