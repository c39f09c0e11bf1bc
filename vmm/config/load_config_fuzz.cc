// Any bytes as a configuration, in both formats: no crash, and what we accept protobuf's own parsers accept with the same
// meaning. The first byte chooses the format: '{' is JSON.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>

#include "absl/strings/string_view.h"
#include "vmm/config/config.pb.h"
#include "vmm/config/document.h"
#include "vmm/config/load_config.h"
#include "vmm/config/message_builder.h"
#include "vmm/config/problems.h"
#include "vmm/config/validate.h"

namespace {

using vmm::Dialect;

void CheckAgainstProtobuf(absl::string_view text, Dialect dialect) {
  vmm::Problems problems;
  const vmm::DocumentNode document = dialect == Dialect::kJson ? vmm::ParseJsonDocument(text, "input", problems)
                                                               : vmm::ParseTextDocument(text, "input", problems);
  vmm::config::VmConfig ours;
  vmm::FieldOrigins origins("input");
  vmm::BuildMessage(document, dialect, "input", ours, origins, problems);
  if (!problems.empty()) return;
  vmm::config::VmConfig theirs;
  const std::string copy(text);
  const bool parsed = dialect == Dialect::kJson
                          ? google::protobuf::util::JsonStringToMessage(copy, &theirs).ok()
                          : google::protobuf::TextFormat::ParseFromString(copy, &theirs);
  if (!parsed || !google::protobuf::util::MessageDifferencer::Equals(ours, theirs)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const Dialect dialect = size != 0 && data[0] == '{' ? Dialect::kJson : Dialect::kText;
  const vmm::HostLimits host{.memory_bytes = uint64_t{1} << 34};
  const auto loaded = vmm::ParseConfig(text, dialect, "input", "/nonexistent", {}, host);
  if (!loaded.ok() && loaded.status().message().empty()) std::abort();
  CheckAgainstProtobuf(text, dialect);
  // As the value of a flag: of a message, of a list.
  const vmm::ConfigOverride overrides[] = {{"--memory", "memory", std::string(text)},
                                           {"--sandbox.waive", "sandbox.waive", std::string(text)}};
  [[maybe_unused]] const auto flags = vmm::ParseConfig("", Dialect::kText, "flags", "", overrides, host);
  return 0;
}
