// The schema's fields and their comments, made from config.proto when the program is built.
//
// Shapes   fields in the order of the schema, a message before its own fields.
// Threads  immutable, read-only data.
#ifndef VMM_VMM_CONFIG_HELP_H_
#define VMM_VMM_CONFIG_HELP_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace vmm {

struct EnumValueHelp {
  const char* name;
  const char* comment;
};

struct FieldHelp {
  const char* path;     // "memory.size_mib", "devices.block[].path"
  const char* type;     // "uint64", "bool", "string", "enum", "message"
  bool repeated;
  const char* comment;  // one line
  const EnumValueHelp* values;
  size_t value_count;
};

[[nodiscard]] absl::Span<const FieldHelp> ConfigFields();
[[nodiscard]] const FieldHelp* FindConfigField(absl::string_view path);

// What `vmm help config` prints: all fields, or `path` and what is below it. "" where there is no such field.
[[nodiscard]] std::string ConfigHelpText(absl::string_view path = "");

// The same as a page of Markdown.
[[nodiscard]] std::string ConfigHelpMarkdown();

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_HELP_H_
