// A configuration file as a tree that remembers lines: what text format and JSON have in common before the schema is known.
//
// Text format and JSON are read here and not by protobuf's parsers because those stop at the first thing the schema
// does not like and cannot say where a JSON field stood. What is accepted here is a subset of what protobuf accepts, with
// the same meaning: the tests and the fuzz target hold the two against each other.
//
// Shapes   text format without extensions, Any, field numbers; JSON as in RFC 8259.
// Units    lines count from 1.
// Threads  any, pure.
// Trust    the text is not trusted: nesting is bounded by kMaxDepth, strings must be UTF-8.
// Errors   a syntax error goes to `problems` as FILE:LINE and ends the parse; the tree is then empty.
#ifndef VMM_VMM_CONFIG_DOCUMENT_H_
#define VMM_VMM_CONFIG_DOCUMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "vmm/config/problems.h"

namespace vmm {

enum class NodeKind : uint8_t {
  kMessage,  // fields
  kList,     // items
  kString,   // text, unescaped
  kNumber,   // text, as written, '-' included
  kWord,     // text: an identifier, or JSON's true, false, null
};

struct DocumentField;

struct DocumentNode {
  NodeKind kind = NodeKind::kMessage;
  int line = 1;
  std::string text;
  std::vector<DocumentField> fields;
  std::vector<DocumentNode> items;
};

struct DocumentField {
  std::string name;
  int line = 1;
  DocumentNode value;
};

inline constexpr int kMaxDepth = 32;

// `file` is for messages only. The result is a kMessage.
[[nodiscard]] DocumentNode ParseTextDocument(absl::string_view text, absl::string_view file, Problems& problems);
[[nodiscard]] DocumentNode ParseJsonDocument(absl::string_view text, absl::string_view file, Problems& problems);

[[nodiscard]] bool IsUtf8(absl::string_view text);

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_DOCUMENT_H_
