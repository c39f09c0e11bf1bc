#include "vmm/config/help.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace vmm {
namespace {

constexpr size_t kColumns = 100;

void AppendWrapped(std::string& out, size_t indent, absl::string_view text) {
  size_t column = 0;
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (column == 0 || column + 1 + word.size() > kColumns) {
      if (column != 0) out.push_back('\n');
      out.append(indent, ' ');
      column = indent;
    } else {
      out.push_back(' ');
      ++column;
    }
    absl::StrAppend(&out, word);
    column += word.size();
  }
  out.push_back('\n');
}

bool Below(absl::string_view path, absl::string_view ancestor) {
  return absl::ConsumePrefix(&path, ancestor) && (absl::StartsWith(path, ".") || absl::StartsWith(path, "[]."));
}

std::string TypeName(const FieldHelp& field) {
  if (!field.repeated) return field.type;
  return absl::StrCat("list of ", field.type);
}

}  // namespace

const FieldHelp* FindConfigField(absl::string_view path) {
  for (const FieldHelp& field : ConfigFields()) {
    if (path == field.path) return &field;
  }
  return nullptr;
}

std::string ConfigHelpText(absl::string_view path) {
  std::string out;
  for (const FieldHelp& field : ConfigFields()) {
    if (!path.empty() && path != field.path && !Below(field.path, path)) continue;
    if (absl::string_view(field.type) == "message") {
      if (!out.empty()) out.push_back('\n');
      absl::StrAppend(&out, field.path, ": ", field.comment, "\n");
      continue;
    }
    absl::StrAppend(&out, "  ", field.path, "  (", TypeName(field), ")\n");
    AppendWrapped(out, 6, field.comment);
    for (size_t i = 0; i < field.value_count; ++i) {
      AppendWrapped(out, 10, absl::StrCat(field.values[i].name, ": ", field.values[i].comment));
    }
  }
  return out;
}

std::string ConfigHelpMarkdown() {
  std::string out =
      "# Configuration reference\n\n"
      "Made from the comments in `vmm/config/config.proto`; `vmm help config` prints the same. Do not edit:\n"
      "`bazel run //vmm/config:help_test -- --update` writes it anew.\n\n"
      "Every field is also a flag of `vmm run` and `vmm validate`: `--memory.size_mib=512`. A list of messages is one flag:\n"
      "`--devices.block='[{path: \"disk\" format: RAW}]'`; `[]` stands for one of its entries.\n";
  for (const FieldHelp& field : ConfigFields()) {
    if (absl::string_view(field.type) == "message") {
      absl::StrAppend(&out, "\n## `", field.path, "`\n", field.comment, "\n\n");
      continue;
    }
    absl::StrAppend(&out, absl::StrContains(field.path, '.') ? "" : "\n", "- `", field.path, "` (", TypeName(field),
                    "): ", field.comment, "\n");
    for (size_t i = 0; i < field.value_count; ++i) {
      absl::StrAppend(&out, "  - `", field.values[i].name, "`: ", field.values[i].comment, "\n");
    }
  }
  return out;
}

}  // namespace vmm
