// The descriptors that whoever started this program left open, beside 0, 1 and 2: a shell's, a supervisor's. The monitor has no use
// for them, and who takes it over should find none.
//
// Threads  main, before others.
// Errors   none: what cannot be listed is not closed.
#ifndef VMM_VMM_RUN_INHERITED_FDS_H_
#define VMM_VMM_RUN_INHERITED_FDS_H_

#include <vector>

namespace vmm {

// As of now, without the log's.
[[nodiscard]] std::vector<int> InheritedFds();
void CloseInherited(const std::vector<int>& fds);

}  // namespace vmm

#endif  // VMM_VMM_RUN_INHERITED_FDS_H_
