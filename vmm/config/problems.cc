#include "vmm/config/problems.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace vmm {
namespace {
constexpr size_t kMaxQuoted = 60;
}  // namespace

void Problems::Add(absl::string_view where, absl::string_view path, absl::string_view what) {
  if (++count_ > kMaxShown) return;
  std::string line;
  for (const absl::string_view part : {where, path}) {
    if (!part.empty()) absl::StrAppend(&line, part, ": ");
  }
  lines_.push_back(absl::StrCat(line, what));
}

absl::Status Problems::ToStatus() const {
  if (empty()) return absl::OkStatus();
  std::string text = absl::StrJoin(lines_, "\n");
  if (count_ > kMaxShown) absl::StrAppend(&text, "\n(", count_ - kMaxShown, " more problems are not shown)");
  return absl::InvalidArgumentError(text);
}

std::string Quote(absl::string_view value) {
  if (value.size() <= kMaxQuoted) return absl::StrCat("\"", absl::CHexEscape(value), "\"");
  return absl::StrCat("\"", absl::CHexEscape(value.substr(0, kMaxQuoted)), "...\"");
}

std::string QuotePath(absl::string_view path) { return absl::StrCat("\"", absl::CHexEscape(path), "\""); }

std::string Printable(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      absl::StrAppend(&out, "\\x", absl::Hex(byte, absl::kZeroPad2));
    } else {
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace vmm
