#include "vmm/config/suggest.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

constexpr size_t kMaxTyped = 100;

std::string Fold(absl::string_view text) {
  std::string out = absl::AsciiStrToLower(text);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

// Insertions, deletions, replacements and swaps of neighbours, each at 1.
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = previous;
    previous = row;
  }
  return previous[b.size()];
}

}  // namespace

std::string Nearest(absl::string_view typed, const std::vector<std::string>& names) {
  if (typed.empty() || typed.size() > kMaxTyped) return "";
  const std::string folded = Fold(typed);
  size_t best = std::max<size_t>(1, typed.size() / 3) + 1;
  std::string found;
  for (const std::string& name : names) {
    const size_t distance = Distance(folded, Fold(name));
    if (distance < best) {
      best = distance;
      found = name;
    }
  }
  return found;
}

std::string DidYouMean(absl::string_view typed, const std::vector<std::string>& names) {
  const std::string near = Nearest(typed, names);
  return near.empty() ? "" : absl::StrCat("; did you mean ", near, "?");
}

}  // namespace vmm
