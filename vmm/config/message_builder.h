// From a document or a flag to the configuration message, by reflection, remembering where each field was given.
//
// Shapes   a field path is dotted: "memory.size_mib"; an element of a repeated field is "sandbox.waive[1]".
// Threads  confined.
// Trust    names and values are not trusted; they are quoted escaped.
// Errors   everything that does not fit the schema goes to `problems`; what fits is set all the same, so that one run
//          reports everything.
#ifndef VMM_VMM_CONFIG_MESSAGE_BUILDER_H_
#define VMM_VMM_CONFIG_MESSAGE_BUILDER_H_

#include <map>
#include <optional>
#include <string>

#include <google/protobuf/message.h>

#include "absl/strings/string_view.h"
#include "vmm/config/document.h"
#include "vmm/config/problems.h"

namespace vmm {

// A field given by a flag: "--memory.size_mib=512", or a flag with a name of its own that stands for one ("--log-level").
struct ConfigOverride {
  std::string flag;                  // as typed, for messages
  std::string path;                  // "memory.size_mib"
  std::optional<std::string> value;  // none: a bare flag, true for a bool
};

// Where fields were given.
class FieldOrigins final {
 public:
  struct Origin {
    std::string where;       // "vm.textproto:3", or the flag
    bool from_flag = false;  // relative paths then start at the working directory
  };
  // `fallback` stands for fields that nobody gave: the file's name.
  explicit FieldOrigins(absl::string_view fallback) : fallback_(fallback) {}

  void Set(const std::string& path, Origin origin) { origins_[path] = std::move(origin); }
  // The field's own origin, else that of the nearest message around it, else the fallback.
  [[nodiscard]] std::string Where(absl::string_view path) const;
  [[nodiscard]] bool FromFlag(const std::string& path) const;

 private:
  const std::string fallback_;
  std::map<std::string, Origin> origins_;
};

enum class Dialect : uint8_t { kText, kJson };

void BuildMessage(const DocumentNode& document, Dialect dialect, absl::string_view file,
                  google::protobuf::Message& message, FieldOrigins& origins, Problems& problems);

// Sets one field. A repeated field's value is a comma-separated list that replaces what was there, of messages one in braces or
// a list of them in brackets; a message's is text format, and sets the fields that it names. Enum values are taken in any letter case.
void ApplyOverride(const ConfigOverride& override, google::protobuf::Message& message, FieldOrigins& origins,
                   Problems& problems);

}  // namespace vmm

#endif  // VMM_VMM_CONFIG_MESSAGE_BUILDER_H_
