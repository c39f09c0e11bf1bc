// "did you mean ...": the name nearest to a mistyped one.
//
// Threads  any, pure.
#ifndef VMM_VMM_CONFIG_SUGGEST_H_
#define VMM_VMM_CONFIG_SUGGEST_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace vmm {

// The nearest of `names`, or "" where none is near: at most a third of the letters (and at least one) may differ.
// Letter case and '-' against '_' do not count.
[[nodiscard]] std::string Nearest(absl::string_view typed, const std::vector<std::string>& names);

// "; did you mean X?" or "".
[[nodiscard]] std::string DidYouMean(absl::string_view typed, const std::vector<std::string>& names);

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_SUGGEST_H_
