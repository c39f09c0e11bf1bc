#include "devices/virtio/net/passt.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "devices/virtio/backend/backend_process.h"

namespace vmm {

absl::StatusOr<OwnedFd> OpenPasst(const std::string& program) {
  OwnedFd fd(::open(program.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat("open passt '", program, "'"));
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return ErrnoStatus(errno, absl::StrCat("examine '", program, "'"));
  if (!S_ISREG(about.st_mode) || (about.st_mode & 0111) == 0) {
    return absl::InvalidArgumentError(absl::StrCat("open passt '", program, "': it is no program"));
  }
  return fd;
}

CompanionOptions PasstCompanion(const PasstOptions& options, const OwnedFd& program) {
  // In the foreground: it is ours to wait for.
  std::vector<std::string> arguments = {"passt", "--foreground", "--stderr", "--quiet", "--fd", absl::StrCat(kBackendSocketFd)};
  if (options.mtu != 0) arguments.insert(arguments.end(), {"--mtu", absl::StrCat(options.mtu)});
  arguments.insert(arguments.end(), {"--tcp-ports", options.tcp_ports.empty() ? "none" : options.tcp_ports});
  arguments.insert(arguments.end(), {"--udp-ports", options.udp_ports.empty() ? "none" : options.udp_ports});
  return {.name = "passt", .arguments = std::move(arguments), .executable_fd = program.get()};
}

bool IsPasstPorts(absl::string_view ports) {
  const auto good = [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)) || absl::string_view(",:-~/.").find(c) != absl::string_view::npos; };
  return !ports.empty() && ports.size() <= 1000 && absl::ascii_isdigit(static_cast<unsigned char>(ports[0])) &&
         std::all_of(ports.begin(), ports.end(), good);
}

}  // namespace vmm
