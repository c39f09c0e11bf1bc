// The list of everything that is wrong with a configuration: all of it is reported, not only the first.
//
// Shapes   a problem is one line: "<where>: <field path>: <what>". Where is FILE:LINE, FILE, a flag, or nothing.
// Threads  confined.
// Trust    quoted values come from files and flags: Quote escapes control characters and shortens.
// Errors   ToStatus: INVALID_ARGUMENT with the lines joined by '\n'; OK when there are none.
#ifndef VMM_VMM_CONFIG_PROBLEMS_H_
#define VMM_VMM_CONFIG_PROBLEMS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace vmm {

class Problems final {
 public:
  static constexpr size_t kMaxShown = 100;

  // Empty `where` or `path` is left out.
  void Add(absl::string_view where, absl::string_view path, absl::string_view what);
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] absl::Status ToStatus() const;

 private:
  std::vector<std::string> lines_;
  size_t count_ = 0;
};

// "value" in double quotes, fit for a terminal: escaped, at most about 60 characters.
[[nodiscard]] std::string Quote(absl::string_view value);

// The same without a limit: a file's name is useless when cut.
[[nodiscard]] std::string QuotePath(absl::string_view path);

// The escaping alone, for names of files and flags in front of a problem.
[[nodiscard]] std::string Printable(absl::string_view text);

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_PROBLEMS_H_
