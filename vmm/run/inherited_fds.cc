#include "vmm/run/inherited_fds.h"

#include <dirent.h>
#include <unistd.h>

#include <cstdlib>

#include "base/log.h"

namespace vmm {

std::vector<int> InheritedFds() {
  std::vector<int> fds;
  DIR* const folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return fds;
  while (const dirent* entry = ::readdir(folder)) {
    char* end = nullptr;
    const long fd = std::strtol(entry->d_name, &end, 10);
    if (end == entry->d_name || *end != '\0') continue;
    if (fd > STDERR_FILENO && fd != ::dirfd(folder) && fd != CurrentLogConfig().fd) fds.push_back(static_cast<int>(fd));
  }
  ::closedir(folder);
  return fds;
}

void CloseInherited(const std::vector<int>& fds) {
  for (const int fd : fds) ::close(fd);
}

}  // namespace vmm
