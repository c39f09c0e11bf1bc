// A device process for jail_test: looks around, enters the sandbox, then does what its argument says.
//
// Descriptor 3 takes its report, one fact a line; descriptor 5 is read for the order to go on. An attempt that was not
// stopped ends in exit code 99.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "sandbox/enter.h"
#include "sandbox/jail_options.h"
#include "sandbox/jail_test_policy.h"

namespace {

constexpr int kReportFd = 3;
constexpr int kOrderFd = 5;

void Report(const std::string& line) { (void)!::write(kReportFd, (line + "\n").data(), line.size() + 1); }

int OpenError(const char* path, int flags) {
  const int fd = ::open(path, flags, 0600);
  if (fd < 0) return errno;
  ::close(fd);
  return 0;
}

std::string RootEntries() {
  DIR* root = ::opendir("/");
  if (root == nullptr) return "unreadable";
  int count = 0;
  while (::readdir(root) != nullptr) ++count;
  ::closedir(root);
  return std::to_string(count - 2);
}

void LookAround() {
  Report(absl::StrCat("pid=", ::getpid()));
  Report(absl::StrCat("uid=", ::getuid()));
  Report(absl::StrCat("gid=", ::getgid()));
  Report(absl::StrCat("root_entries=", RootEntries()));
  Report(absl::StrCat("create=", OpenError("/file", O_CREAT | O_WRONLY)));
  Report(absl::StrCat("dotdot=", OpenError("/../etc/passwd", O_RDONLY)));
  Report(absl::StrCat("kill_all=", ::kill(-1, 0) == 0 ? 0 : errno));
  const int socket = ::socket(AF_INET, SOCK_DGRAM, 0);
  struct if_nameindex* interfaces = ::if_nameindex();
  std::string names;
  for (auto* i = interfaces; i != nullptr && i->if_index != 0; ++i) {
    ifreq request{};
    absl::string_view(i->if_name).copy(request.ifr_name, sizeof(request.ifr_name) - 1);
    ::ioctl(socket, SIOCGIFFLAGS, &request);
    if ((request.ifr_flags & IFF_UP) != 0) absl::StrAppend(&names, i->if_name, ";");
  }
  ::if_freenameindex(interfaces);
  ::close(socket);
  Report(absl::StrCat("up=", names));
  std::string open;
  for (int fd = 0; fd < 1024; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) absl::StrAppend(&open, fd, ";");
  }
  Report(absl::StrCat("fds=", open));
  Report(absl::StrCat("environment=", environ == nullptr || environ[0] == nullptr ? "empty" : environ[0]));
  rlimit limit{};
  ::getrlimit(RLIMIT_NPROC, &limit);
  Report(absl::StrCat("nproc=", limit.rlim_cur));
  ::getrlimit(RLIMIT_CORE, &limit);
  Report(absl::StrCat("core=", limit.rlim_cur));
  Report(absl::StrCat("fork=", ::syscall(SYS_fork) < 0 ? errno : 0));
  const mode_t mask = ::umask(077);
  Report(absl::StrCat("umask=", mask));
}

void Attempt(const std::string& what) {
  if (what == "open") {
    (void)!::open("/", O_RDONLY);
  } else if (what == "socket") {
    ::socket(AF_UNIX, SOCK_STREAM, 0);
  } else if (what == "ptrace") {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  } else if (what == "map_executable") {
    ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  } else if (what == "make_executable") {
    alignas(4096) static char page[4096];
    ::mprotect(page, sizeof(page), PROT_READ | PROT_EXEC);
  } else if (what == "map_descriptor") {
    ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, kOrderFd, 0);
  } else if (what == "fork") {
    ::syscall(SYS_fork);
  } else if (what == "execve") {
    ::syscall(SYS_execve, "/bin/sh", nullptr, nullptr);
  } else if (what == "i386") {
    asm volatile("int $0x80" : : "a"(20) : "memory");  // getpid of the 32-bit ABI
  } else if (what == "x32") {
    ::syscall(0x40000000 | SYS_getpid);
  } else if (what == "exit") {
    ::_exit(7);
  } else if (what == "wait") {
    char order;
    while (::read(kOrderFd, &order, 1) != 0) {
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  vmm::JailOptions options;
  for (int i = 2; i < argc; ++i) {
    if (!vmm::ParseJailOptionArgument(argv[i], options)) return 98;
  }
  LookAround();
  constexpr int kDescriptors[] = {kReportFd, kOrderFd};
  const vmm::DeviceSandboxPolicy policy{"vmm-jailtest", vmm::kJailTestPolicy, kDescriptors};
  if (const absl::Status status = vmm::EnterDeviceSandbox(policy, options); !status.ok()) {
    Report(absl::StrCat("refused=", std::string(status.message())));
    ::_exit(97);
  }
  Report("entered=1");
  char order = 0;
  if (::read(kOrderFd, &order, 1) != 1) ::_exit(96);
  Attempt(argc > 1 ? argv[1] : "");
  ::_exit(99);
}
