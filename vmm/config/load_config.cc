#include "vmm/config/load_config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/text_format.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "vmm/config/document.h"

namespace vmm {
namespace {

absl::Status Refuse(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": ", what));
}

absl::StatusOr<std::string> ReadBounded(int fd, const std::string& name) {
  std::string text;
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(fd, buffer, sizeof(buffer));
    const int error = errno;
    if (count < 0 && error == EINTR) continue;
    if (count < 0) return Refuse(name, ErrnoStatus(error, "cannot read the file").message());
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kMaxConfigBytes) {
      return Refuse(name, absl::StrCat("is larger than ", kMaxConfigBytes, " bytes"));
    }
  }
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  if (path.find('\0') != std::string::npos) return Refuse(path, "is not a file name");
  // O_NONBLOCK: opening a FIFO must not wait for somebody to write to it.
  const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  const int error = errno;
  if (!fd.valid()) return Refuse(path, ErrnoStatus(error, "cannot open the configuration").message());
  struct stat about{};
  if (::fstat(fd.get(), &about) != 0) return Refuse(path, "cannot be examined");
  if (S_ISDIR(about.st_mode)) return Refuse(path, "is a directory, not a configuration file");
  if (!S_ISREG(about.st_mode)) return Refuse(path, "is not a regular file ('-' reads standard input)");
  return ReadBounded(fd.get(), path);
}

}  // namespace

absl::StatusOr<LoadedConfig> ParseConfig(absl::string_view text, Dialect dialect, const std::string& name,
                                         const std::string& base_dir, absl::Span<const ConfigOverride> overrides,
                                         const HostLimits& host) {
  google::protobuf::SetLogHandler(nullptr);
  const std::string file = Printable(name);
  Problems problems;
  const DocumentNode document = dialect == Dialect::kJson ? ParseJsonDocument(text, file, problems)
                                                          : ParseTextDocument(text, file, problems);
  if (!problems.empty()) return problems.ToStatus();

  LoadedConfig loaded;
  FieldOrigins origins(file);
  BuildMessage(document, dialect, file, loaded.effective, origins, problems);
  for (const ConfigOverride& override : overrides) ApplyOverride(override, loaded.effective, origins, problems);
  loaded.config = ValidateMessage(loaded.effective, base_dir, origins, host, problems);
  if (!problems.empty()) return problems.ToStatus();
  return loaded;
}

absl::StatusOr<LoadedConfig> LoadConfigWithMessage(const std::string& path, absl::Span<const ConfigOverride> overrides) {
  if (path.empty()) return ParseConfig("", Dialect::kText, "flags", "", overrides);
  if (path == "-") {
    ASSIGN_OR_RETURN(const std::string text, ReadBounded(STDIN_FILENO, "standard input"));
    const bool json = absl::StartsWith(absl::StripLeadingAsciiWhitespace(text), "{");
    return ParseConfig(text, json ? Dialect::kJson : Dialect::kText, "standard input", "", overrides);
  }
  ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(path));
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  return ParseConfig(text, absl::EndsWithIgnoreCase(path, ".json") ? Dialect::kJson : Dialect::kText, path, folder,
                     overrides);
}

absl::StatusOr<VmConfig> LoadConfig(const std::string& path, absl::Span<const ConfigOverride> overrides) {
  ASSIGN_OR_RETURN(LoadedConfig loaded, LoadConfigWithMessage(path, overrides));
  return std::move(loaded.config);
}

std::string ConfigToText(const config::VmConfig& message) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(message, &text);
  return text;
}

}  // namespace vmm
