#include "sandbox/jail_attempts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace vmm {
namespace {

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

// What is left without a filter. The exit code of the first that should have failed.
int Unfiltered() {
  if (::open("/etc/passwd", O_RDONLY) >= 0) return 10;
  if (::open("/", O_RDONLY) >= 0 && ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) > 0) return 11;
  if (::ptrace(PTRACE_ATTACH, ::getppid(), nullptr, nullptr) == 0) return 12;
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(1);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 || errno == ECONNREFUSED) return 13;
  if (::syscall(SYS_fork) >= 0) return 14;
  if (::syscall(SYS_setuid, 0) == 0) return 15;
  if (::mount("none", "/", "tmpfs", 0, nullptr) == 0) return 16;
  return 7;
}

}  // namespace

void LookAroundInJail(const std::function<void(const std::string&)>& report) {
  report(absl::StrCat("pid=", ::getpid()));
  report(absl::StrCat("uid=", ::getuid()));
  report(absl::StrCat("gid=", ::getgid()));
  report(absl::StrCat("root_entries=", RootEntries()));
  report(absl::StrCat("create=", OpenError("/file", O_CREAT | O_WRONLY)));
  report(absl::StrCat("dotdot=", OpenError("/../etc/passwd", O_RDONLY)));
  report(absl::StrCat("kill_all=", ::kill(-1, 0) == 0 ? 0 : errno));
  report(absl::StrCat("parent=", ::getppid()));
  report(absl::StrCat("hostname=", ::sethostname("x", 1) == 0 ? 0 : errno));
  report(absl::StrCat("mount=", ::mount("none", "/", "tmpfs", 0, nullptr) == 0 ? 0 : errno));
  report(absl::StrCat("chroot=", ::chroot("/") == 0 ? 0 : errno));
  report(absl::StrCat("setuid=", ::syscall(SYS_setuid, 0) == 0 ? 0 : errno));
  report(absl::StrCat("ambient=", ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0 ? 0 : errno));
  report(absl::StrCat("securebits=", ::prctl(PR_SET_SECUREBITS, 0, 0, 0, 0) == 0 ? 0 : errno));
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
  report(absl::StrCat("up=", names));
  std::string open;
  for (int fd = 0; fd < 1024; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) absl::StrAppend(&open, fd, ";");
  }
  report(absl::StrCat("fds=", open));
  report(absl::StrCat("environment=", environ == nullptr || environ[0] == nullptr ? "empty" : environ[0]));
  rlimit limit{};
  ::getrlimit(RLIMIT_NPROC, &limit);
  report(absl::StrCat("nproc=", limit.rlim_cur));
  ::getrlimit(RLIMIT_CORE, &limit);
  report(absl::StrCat("core=", limit.rlim_cur));
  report(absl::StrCat("fork=", ::syscall(SYS_fork) < 0 ? errno : 0));
  const mode_t mask = ::umask(077);
  report(absl::StrCat("umask=", mask));
}

void AttemptInJail(const std::string& what, int fd) {
  long number = 0;
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
    ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  } else if (what == "fork") {
    ::syscall(SYS_fork);
  } else if (what == "execve") {
    ::syscall(SYS_execve, "/bin/sh", nullptr, nullptr);
  } else if (what == "unlink") {
    ::unlink("/x");
  } else if (what == "mkdir") {
    ::mkdir("/x", 0700);
  } else if (what == "chdir") {
    (void)!::chdir("..");
  } else if (what == "memfd") {
    ::memfd_create("x", 0);
  } else if (what == "read_other") {
    ::process_vm_readv(1, nullptr, 0, nullptr, 0, 0);
  } else if (what == "thread") {
    ::syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, nullptr, nullptr, nullptr, 0);
  } else if (what == "setuid") {
    ::syscall(SYS_setuid, 0);
  } else if (what == "capset") {
    ::syscall(SYS_capset, nullptr, nullptr);
  } else if (what == "unshare") {
    ::unshare(CLONE_NEWUSER);
  } else if (what == "mount") {
    ::mount("none", "/", "tmpfs", 0, nullptr);
  } else if (what == "dumpable") {
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  } else if (what == "handler") {
    ::signal(SIGSYS, SIG_IGN);
  } else if (what == "filter") {
    ::syscall(SYS_seccomp, 1, 0, nullptr);
  } else if (what == "io_uring") {
    ::syscall(SYS_io_uring_setup, 1, nullptr);
  } else if (what == "bpf") {
    ::syscall(SYS_bpf, 0, nullptr, 0);
  } else if (what == "keyctl") {
    ::syscall(SYS_keyctl, 0, 0, 0, 0, 0);
  } else if (what == "kill_parent") {
    ::syscall(SYS_tgkill, 2, 2, SIGABRT);
  } else if (what == "ioctl") {
    int count;
    ::ioctl(fd, FIONREAD, &count);
  } else if (what == "write_elsewhere") {
    (void)!::write(0, "x", 1);
  } else if (what == "flood") {
    while (::write(2, "\x1b[2J\nforged", 11) > 0) {
    }
    ::_exit(7);
  } else if (what == "unfiltered") {
    ::_exit(Unfiltered());
  } else if (what == "i386") {
    asm volatile("int $0x80" : : "a"(20) : "memory");  // getpid of the 32-bit ABI
  } else if (what == "x32") {
    ::syscall(0x40000000 | SYS_getpid);
  } else if (absl::SimpleAtoi(absl::StripPrefix(what, kAttemptCall), &number)) {
    constexpr unsigned long kOdd = kOddJailArgument;
    ::syscall(number, kOdd, kOdd, kOdd, kOdd, kOdd, kOdd);
  } else if (what == "exit" || what == "exit_after_namespace") {
    ::_exit(7);
  } else if (what == "wait") {
    char order;
    while (::read(fd, &order, 1) != 0) {
    }
  }
}

}  // namespace vmm
