// The first process of a lab machine: makes the caller's file system the root, runs one command there, and carries its
// standard streams, signals and exit status over a virtio-serial port to lab/run, which is the only other end.
//
// Wire     frames {u32 type, u32 length, payload}, little endian. The names of enum FrameType are also in lab/run.
// Flow     each stream has a window of kWindowBytes: a sender stops at its end until the receiver, having handed the
//          bytes on, gives credit back. So a fast producer waits, and a full stream never holds up a signal.
// Threads  one, around one poll().
// Errors   Die() tells lab/run why and ends the machine; there is nobody else to tell.
// Trust    lab/run is trusted; the command is not able to reach the port unless it is root in here.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/if.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace {

enum FrameType : uint32_t {
  // To the agent.
  kStart = 1,       // the command: see ParseStart
  kStdin = 2,       // bytes; none: end of file
  kSignal = 3,      // u32 number, for the command's process group
  kWindowSize = 4,  // u16 rows, u16 columns
  kCredit = 5,      // both ways: u32 stream (0, 1, 2), u32 bytes
  kNoWriter = 6,    // u32 stream: nobody reads this output of the command any more
  // From the agent.
  kReady = 16,     // the machine is up, no payload
  kOutput = 17,    // bytes of standard output
  kError = 18,     // bytes of standard error
  kNoReader = 19,  // nobody reads the command's standard input any more
  kExited = 20,    // u32 wait status of the command; everything else has been sent
  kDied = 21,      // text: the lab itself failed
};

constexpr size_t kWindowBytes = 256 * 1024;
constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kFrameLimit = 64 * 1024 * 1024;
constexpr char kPortName[] = "vmm.lab";

int g_port = -1;
int g_console = STDERR_FILENO;

[[noreturn]] void PowerOff() {
  sync();
  reboot(RB_AUTOBOOT);  // the emulator runs with -no-reboot, and leaves at once
  for (;;) pause();
}

void WriteAllBlocking(int fd, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = write(fd, at, size);
    if (n > 0) {
      at += n;
      size -= static_cast<size_t>(n);
    } else if (errno == EAGAIN) {
      pollfd p = {fd, POLLOUT, 0};
      poll(&p, 1, 1000);
    } else if (errno != EINTR) {
      return;
    }
  }
}

[[noreturn]] __attribute__((format(printf, 1, 2))) void Die(const char* format, ...) {
  const int error = errno;
  char text[1024];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof(text) - 64, format, args);
  va_end(args);
  n = std::min<int>(n, sizeof(text) - 65);
  if (error != 0) n += snprintf(text + n, 64, ": %s", strerror(error));
  dprintf(g_console, "lab agent: %s\n", text);
  if (g_port >= 0) {
    const uint32_t header[2] = {kDied, static_cast<uint32_t>(n)};
    WriteAllBlocking(g_port, header, sizeof(header));
    WriteAllBlocking(g_port, text, static_cast<size_t>(n));
    usleep(200 * 1000);  // lab/run ends the emulator first when it is there
  }
  PowerOff();
}

// --- What to run -------------------------------------------------------------------------------------------------------

struct Start {
  std::vector<std::string> args, env;
  std::vector<gid_t> groups;
  struct Limit {
    int resource;
    rlimit value;
  };
  std::vector<Limit> limits;
  std::string cwd = "/", out, modules;
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t umask = 022;
  unsigned rows = 0, columns = 0;
  bool pty = false;         // standard input and output are a terminal
  bool pty_stderr = false;  // and standard error too
};

// A start frame is a row of {u32 length, key}, {u32 length, value}; keys may repeat, unknown ones are an error.
Start ParseStart(const std::string& payload) {
  size_t at = 0;
  auto next = [&]() -> std::string {
    uint32_t size;
    errno = 0;
    if (payload.size() - at < sizeof(size)) Die("start frame: short");
    memcpy(&size, payload.data() + at, sizeof(size));
    at += sizeof(size);
    if (payload.size() - at < size) Die("start frame: short");
    at += size;
    return payload.substr(at - size, size);
  };
  Start start;
  while (at < payload.size()) {
    const std::string key = next(), value = next();
    const auto number = [&] { return strtoul(value.c_str(), nullptr, 10); };
    if (key == "arg") {
      start.args.push_back(value);
    } else if (key == "env") {
      start.env.push_back(value);
    } else if (key == "group") {
      start.groups.push_back(static_cast<gid_t>(number()));
    } else if (key == "limit") {  // "resource soft hard"; -1 is infinity
      long long soft, hard;
      int resource;
      if (sscanf(value.c_str(), "%d %lld %lld", &resource, &soft, &hard) != 3) Die("start frame: limit");
      start.limits.push_back({resource, {static_cast<rlim_t>(soft), static_cast<rlim_t>(hard)}});
    } else if (key == "cwd") {
      start.cwd = value;
    } else if (key == "out") {
      start.out = value;
    } else if (key == "modules") {
      start.modules = value;
    } else if (key == "uid") {
      start.uid = static_cast<uid_t>(number());
    } else if (key == "gid") {
      start.gid = static_cast<gid_t>(number());
    } else if (key == "umask") {
      start.umask = static_cast<mode_t>(number());
    } else if (key == "rows") {
      start.rows = static_cast<unsigned>(number());
    } else if (key == "columns") {
      start.columns = static_cast<unsigned>(number());
    } else if (key == "pty") {
      start.pty = true;
    } else if (key == "pty_stderr") {
      start.pty_stderr = true;
    } else {
      Die("start frame: unknown key '%s'", key.c_str());
    }
  }
  errno = 0;
  if (start.args.empty()) Die("start frame: no command");
  return start;
}

// --- The machine -------------------------------------------------------------------------------------------------------

void Mount(const char* source, const char* target, const char* type, unsigned long flags, const std::string& data) {
  if (mount(source, target, type, flags, data.c_str()) != 0) Die("mount %s on %s", type, target);
}

// Like mkdir -p. `path` is absolute.
void MakeDirectories(const std::string& path) {
  for (size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at);
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) Die("mkdir %s", part.c_str());
    if (at != std::string::npos) ++at;
  }
}

// KVM keeps the TSC's frequency of when it is loaded, and the kernel measures that again in its first seconds: with two values, KVM's clock
// and one that is computed from what it reports part. The clock source "tsc" is there once it has been measured for good; a kernel that
// does without is not waited for longer.
void WaitForTsc() {
  for (int tries = 0; tries < 300; ++tries) {
    char name[16] = {};
    const int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    const ssize_t count = read(fd, name, sizeof(name) - 1);
    close(fd);
    if (count <= 0 || strcmp(name, "tsc\n") == 0) return;
    usleep(10'000);
  }
}

// /modules/order names the modules of this kernel, each after what it needs. No such file: everything is built in.
void LoadModules() {
  FILE* order = fopen("/modules/order", "re");
  if (order == nullptr) return;
  char name[256];
  while (fgets(name, sizeof(name), order) != nullptr) {
    name[strcspn(name, "\n")] = '\0';
    if (strcmp(name, "kvm") == 0) WaitForTsc();
    const std::string path = std::string("/modules/") + name;
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) Die("open %s", path.c_str());
    if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST) Die("load %s", path.c_str());
    close(fd);
  }
  fclose(order);
}

int OpenPort() {
  constexpr char kDirectory[] = "/sys/class/virtio-ports";
  for (int tries = 0; tries < 2000; ++tries) {  // the driver probes in its own time
    if (DIR* directory = opendir(kDirectory); directory != nullptr) {
      while (const dirent* entry = readdir(directory)) {
        char name[64] = "";
        const std::string path = std::string(kDirectory) + "/" + entry->d_name + "/name";
        if (FILE* file = fopen(path.c_str(), "re"); file != nullptr) {
          if (fgets(name, sizeof(name), file) == nullptr) name[0] = '\0';
          fclose(file);
        }
        name[strcspn(name, "\n")] = '\0';
        if (strcmp(name, kPortName) != 0) continue;
        const std::string node = std::string("/dev/") + entry->d_name;
        const int fd = open(node.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0) {
          closedir(directory);
          return fd;
        }
      }
      closedir(directory);
    }
    usleep(5000);
  }
  Die("no virtio-serial port named %s", kPortName);
}

void LoopbackUp() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  ifreq request = {};
  strcpy(request.ifr_name, "lo");
  if (ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
    request.ifr_flags |= IFF_UP;
    ioctl(fd, SIOCSIFFLAGS, &request);
  }
  close(fd);
}

// KVM patches its own and the scheduler's code (static keys) when the first VM, the first vCPU without a local APIC or with
// a disabled one comes, and when the last one goes. The emulator's threads can lose that race with another processor, which
// then runs a breakpoint that is no longer there, and the kernel dies ("Oops: int3" in __schedule). So the keys are turned
// here, before there is a second processor, and held for the life of the machine: the descriptors are never closed.
void HoldStaticKeys() {
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) return;  // a kernel without KVM: whoever needs it will say so
  const auto vm = [kvm](bool local_apics) {
    const int fd = ioctl(kvm, KVM_CREATE_VM, 0);
    if (fd < 0) Die("create a VM to hold KVM's static keys");
    if (local_apics && ioctl(fd, KVM_CREATE_IRQCHIP, 0) != 0) Die("create interrupt controllers to hold KVM's static keys");
    return fd;
  };
  const auto vcpu = [](int vm_fd, unsigned long id) {
    const int fd = ioctl(vm_fd, KVM_CREATE_VCPU, id);
    if (fd < 0) Die("create a vCPU to hold KVM's static keys");
    return fd;
  };
  vcpu(vm(false), 0);
  const int with_apics = vm(true);
  vcpu(with_apics, 0);  // its local APIC is software-disabled until a guest enables it
  const int disabled = vcpu(with_apics, 1);
  kvm_sregs sregs = {};
  if (ioctl(disabled, KVM_GET_SREGS, &sregs) != 0) Die("read vCPU registers");
  sregs.apic_base &= ~(uint64_t{1} << 11);  // hardware-disabled
  if (ioctl(disabled, KVM_SET_SREGS, &sregs) != 0) Die("disable a local APIC to hold KVM's static key");
}

// The kernel was told to start one only.
void StartOtherProcessors() {
  for (int cpu = 1;; ++cpu) {
    const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online";
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, "1", 1) != 1) Die("start processor %d", cpu);
    close(fd);
  }
}

// devtmpfs makes the nodes of loaded drivers only; opening one of these loads its driver (devname aliases do the rest).
void MakeDeviceNodes() {
  mkdir("/dev/net", 0755);
  constexpr struct {
    const char* path;
    unsigned major, minor;
  } kNodes[] = {{"/dev/net/tun", 10, 200}, {"/dev/vhost-net", 10, 238}, {"/dev/vhost-vsock", 10, 241}};
  for (const auto& node : kNodes) {
    if (mknod(node.path, S_IFCHR | 0666, makedev(node.major, node.minor)) != 0 && errno != EEXIST) continue;
    chmod(node.path, 0666);
  }
  chmod("/dev/kvm", 0666);
  constexpr const char* kLinks[][2] = {{"/proc/self/fd", "/dev/fd"},
                                       {"/proc/self/fd/0", "/dev/stdin"},
                                       {"/proc/self/fd/1", "/dev/stdout"},
                                       {"/proc/self/fd/2", "/dev/stderr"}};
  for (const auto& link : kLinks) {
    if (symlink(link[0], link[1]) != 0 && errno != EEXIST) Die("symlink %s", link[1]);
  }
}

// The machine that started the lab, as root: its files below, what is written here in memory above.
void EnterRoot(const Start& start) {
  constexpr char k9p[] = "trans=virtio,version=9p2000.L,msize=512000,access=any";
  mkdir("/lower", 0755);
  mkdir("/memory", 0755);
  mkdir("/root", 0755);
  Mount("root", "/lower", "9p", MS_RDONLY | MS_NOATIME, std::string(k9p) + ",cache=loose");
  Mount("memory", "/memory", "tmpfs", 0, "mode=0755,size=100%");
  mkdir("/memory/upper", 0755);
  mkdir("/memory/work", 0755);
  Mount("overlay", "/root", "overlay", MS_NOATIME, "lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work");
  for (const char* name : {"/dev", "/proc", "/sys"}) {
    const std::string target = std::string("/root") + name;
    MakeDirectories(target);
    if (mount(name, target.c_str(), nullptr, MS_MOVE, nullptr) != 0) Die("move %s", name);
  }
  if (chdir("/root") != 0 || mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || chroot(".") != 0 || chdir("/") != 0) {
    Die("change root");
  }
  // The build machine's daemons are not here: hide their sockets and locks, unless the caller works among them.
  if (start.cwd != "/run" && start.cwd.rfind("/run/", 0) != 0) {
    MakeDirectories("/run");
    Mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    mkdir("/run/lock", 01777);
  }
  mkdir("/dev/pts", 0755);
  mkdir("/dev/shm", 0755);
  mkdir("/dev/mqueue", 0755);
  mkdir("/dev/hugepages", 0755);
  Mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666");
  Mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);       // where the kernel has it
  mount("hugetlbfs", "/dev/hugepages", "hugetlbfs", MS_NOSUID | MS_NODEV, "mode=1777");      // likewise
  mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);  // likewise
  mount("debugfs", "/sys/kernel/debug", "debugfs", 0, nullptr);                              // likewise
  mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, nullptr);                            // likewise
  MakeDeviceNodes();
  if (!start.modules.empty()) {  // so that modprobe, and the kernel's own calls of it, find this kernel's modules
    const std::string source = start.modules, target = "/lib/modules/" + source.substr(source.rfind('/') + 1);
    MakeDirectories(target);
    Mount(source.c_str(), target.c_str(), "bind", MS_BIND, "");
  }
  if (!start.out.empty()) {
    MakeDirectories(start.out);
    // cache=mmap: other than `none` it allows shared writable mappings. SyncOut() writes back what is left.
    Mount("out", start.out.c_str(), "9p", MS_NOATIME, std::string(k9p) + ",cache=mmap");
  }
  LoopbackUp();
  if (sethostname("lab", 3) != 0) Die("sethostname");
}

void SyncOut(const Start& start) {
  if (start.out.empty()) return;
  const int fd = open(start.out.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || syncfs(fd) != 0) Die("write back %s", start.out.c_str());
  close(fd);
}

// --- The command -------------------------------------------------------------------------------------------------------

struct Child {
  pid_t pid = -1;
  int in = -1;   // write end of its standard input; the terminal's master when it has one
  int out = -1;  // read end
  int err = -1;  // read end, or -1 when it is on the terminal
};

[[noreturn]] void ExecCommand(const Start& start) {
  const auto fail = [&](const char* what, int status) {
    dprintf(STDERR_FILENO, "lab/run: %s: %s\n", what, strerror(errno));
    _exit(status);
  };
  for (const Start::Limit& limit : start.limits) setrlimit(static_cast<__rlimit_resource>(limit.resource), &limit.value);
  umask(start.umask);
  if (setgroups(start.groups.size(), start.groups.data()) != 0 || setresgid(start.gid, start.gid, start.gid) != 0 ||
      setresuid(start.uid, start.uid, start.uid) != 0) {
    fail("become the caller", 125);
  }
  if (chdir(start.cwd.c_str()) != 0) fail(start.cwd.c_str(), 125);
  std::vector<char*> args, env;
  for (const std::string& arg : start.args) args.push_back(const_cast<char*>(arg.c_str()));
  for (const std::string& entry : start.env) env.push_back(const_cast<char*>(entry.c_str()));
  args.push_back(nullptr);
  env.push_back(nullptr);
  environ = env.data();  // execvpe searches the PATH of the current environment
  execvpe(args[0], args.data(), env.data());
  fail(args[0], errno == ENOENT ? 127 : 126);
  _exit(126);
}

Child Spawn(const Start& start) {
  Child child;
  int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
  int master = -1, slave = -1;
  if (start.pty) {
    winsize size = {};
    size.ws_row = static_cast<unsigned short>(start.rows);
    size.ws_col = static_cast<unsigned short>(start.columns);
    if (openpty(&master, &slave, nullptr, nullptr, &size) != 0) Die("openpty");
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    if (fchown(slave, start.uid, 5) != 0) Die("chown terminal");
  } else if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    Die("pipe");
  }
  if (!start.pty_stderr && pipe2(err, O_CLOEXEC) != 0) Die("pipe");
  child.pid = fork();
  if (child.pid < 0) Die("fork");
  if (child.pid == 0) {
    for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    setsid();
    if (start.pty) ioctl(slave, TIOCSCTTY, 0);
    dup2(start.pty ? slave : in[0], STDIN_FILENO);
    dup2(start.pty ? slave : out[1], STDOUT_FILENO);
    dup2(start.pty_stderr ? slave : err[1], STDERR_FILENO);
    // As a user, the command may open /dev/stderr and the like by name.
    for (const int fd : {in[0], out[1], err[1]}) {
      if (fd >= 0 && fchown(fd, start.uid, start.gid) != 0) _exit(125);
    }
    ExecCommand(start);
  }
  for (const int fd : {slave, in[0], out[1], err[1]}) {
    if (fd >= 0) close(fd);
  }
  child.in = start.pty ? master : in[1];
  child.out = start.pty ? fcntl(master, F_DUPFD_CLOEXEC, 0) : out[0];
  child.err = err[0];
  for (const int fd : {child.in, child.out, child.err}) {
    if (fd >= 0) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  return child;
}

// --- Between the two ---------------------------------------------------------------------------------------------------

class Relay {
 public:
  explicit Relay(int port, int signals) : port_(port), signals_(signals) {}

  // Blocks until lab/run has said what to run.
  Start ReceiveStart() {
    for (;;) {
      uint32_t type;
      std::string payload;
      if (NextFrame(&type, &payload)) {
        errno = 0;
        if (type != kStart) Die("frame %u before the start frame", type);
        return ParseStart(payload);
      }
      pollfd p[] = {{port_, POLLIN, 0}};
      poll(p, 1, 1000);
      ReadPort();
    }
  }

  void Ready() { QueueFrame(kReady, nullptr, 0), FlushPort(); }

  // Returns the wait status of the command.
  int Run(const Start& start, Child child) {
    start_ = &start;
    child_ = child;
    for (;;) {
      const bool drained = exited_ && DrainedOutput();
      if (drained) return status_;
      PollOnce();
    }
  }

  void Finish(int status) {
    QueueFrame(kExited, &status, sizeof(status));
    while (!to_port_.empty()) {
      FlushPort();
      pollfd p = {port_, POLLOUT, 0};
      if (!to_port_.empty()) poll(&p, 1, 100);
    }
  }

 private:
  struct Stream {
    uint32_t type;
    size_t window = kWindowBytes;
  };

  void QueueFrame(uint32_t type, const void* payload, size_t size) {
    const uint32_t header[2] = {type, static_cast<uint32_t>(size)};
    to_port_.append(reinterpret_cast<const char*>(header), sizeof(header));
    if (size > 0) to_port_.append(static_cast<const char*>(payload), size);
  }

  void FlushPort() {
    size_t done = 0;
    while (done < to_port_.size()) {
      const ssize_t n = write(port_, to_port_.data() + done, to_port_.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno != EAGAIN) PowerOff();  // lab/run has gone
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    to_port_.erase(0, done);
  }

  void ReadPort() {
    char buffer[kReadBytes];
    const ssize_t n = read(port_, buffer, sizeof(buffer));
    if (n > 0) {
      from_port_.append(buffer, static_cast<size_t>(n));
    } else if (n == 0) {
      // No host side. Before the first byte it has yet to attach; afterwards lab/run has gone, and nobody wants the rest.
      if (attached_) PowerOff();
      usleep(1000);
    }
    attached_ |= n > 0;
  }

  bool NextFrame(uint32_t* type, std::string* payload) {
    uint32_t header[2];
    if (from_port_.size() - parsed_ < sizeof(header)) {
      from_port_.erase(0, parsed_);
      parsed_ = 0;
      return false;
    }
    memcpy(header, from_port_.data() + parsed_, sizeof(header));
    errno = 0;
    if (header[1] > kFrameLimit) Die("frame of %u bytes", header[1]);
    if (from_port_.size() - parsed_ - sizeof(header) < header[1]) return false;
    *type = header[0];
    payload->assign(from_port_, parsed_ + sizeof(header), header[1]);
    parsed_ += sizeof(header) + header[1];
    return true;
  }

  void HandleFrame(uint32_t type, const std::string& payload) {
    const auto word = [&](size_t index) {
      uint32_t value = 0;
      if (payload.size() >= (index + 1) * sizeof(value)) memcpy(&value, payload.data() + index * sizeof(value), sizeof(value));
      return value;
    };
    switch (type) {
      case kStdin:
        if (payload.empty()) {
          stdin_ended_ = true;
        } else {
          to_stdin_ += payload;
        }
        FeedStdin();
        break;
      case kSignal:
        // The group is the command's own session; once its leader was reaped the group may still have members.
        // For a moment after fork there is no group yet.
        if (kill(-child_.pid, static_cast<int>(word(0))) != 0 && !exited_) kill(child_.pid, static_cast<int>(word(0)));
        break;
      case kWindowSize:
        if (start_->pty && payload.size() == 4) {
          uint16_t rows_columns[2];
          memcpy(rows_columns, payload.data(), sizeof(rows_columns));
          winsize size = {};
          size.ws_row = rows_columns[0];
          size.ws_col = rows_columns[1];
          ioctl(child_.out, TIOCSWINSZ, &size);
        }
        break;
      case kCredit:
        (word(0) == 1 ? out_ : err_).window += word(1);
        break;
      case kNoWriter: {
        int& fd = word(0) == 1 ? child_.out : child_.err;
        if (fd >= 0) close(fd);
        fd = -1;
        break;
      }
      default:
        errno = 0;
        Die("unknown frame %u", type);
    }
  }

  void CloseStdin() {
    if (child_.in < 0) return;
    close(child_.in);
    child_.in = -1;
  }

  void FeedStdin() {
    size_t done = 0;
    while (child_.in >= 0 && done < to_stdin_.size()) {
      const ssize_t n = write(child_.in, to_stdin_.data() + done, to_stdin_.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno != EAGAIN) {
        CloseStdin();
        QueueFrame(kNoReader, nullptr, 0);
      }
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    if (child_.in < 0) done = to_stdin_.size();
    to_stdin_.erase(0, done);
    if (done > 0) {
      const uint32_t credit[2] = {0, static_cast<uint32_t>(done)};
      QueueFrame(kCredit, credit, sizeof(credit));
    }
    if (stdin_ended_ && to_stdin_.empty()) CloseStdin();
  }

  // True: something was read.
  bool ReadOutput(int* fd, Stream* stream) {
    if (*fd < 0 || stream->window == 0) return false;
    char buffer[kReadBytes];
    const ssize_t n = read(*fd, buffer, std::min(sizeof(buffer), stream->window));
    if (n > 0) {
      stream->window -= static_cast<size_t>(n);
      QueueFrame(stream->type, buffer, static_cast<size_t>(n));
      return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    // EIO is a terminal's way to say that its last user left; before the command's end another may still come.
    if (n < 0 && errno == EIO && start_->pty && !exited_) {
      usleep(1000);
      return false;
    }
    close(*fd);
    *fd = -1;
    return false;
  }

  // After the command's end: has all it wrote been sent? What it left in the background may hold its pipes open for
  // ever, so an empty pipe is the end, not only a closed one.
  bool DrainedOutput() {
    const auto drained = [&](int* fd, Stream* stream) {
      while (ReadOutput(fd, stream)) {
      }
      if (*fd < 0) return true;
      pollfd p = {*fd, POLLIN, 0};
      return poll(&p, 1, 0) == 0;
    };
    const bool out = drained(&child_.out, &out_);
    const bool err = drained(&child_.err, &err_);
    return out && err;
  }

  void PollOnce() {
    const bool queue_full = to_port_.size() > kWindowBytes * 3;
    const short port_events = static_cast<short>(POLLIN | (to_port_.empty() ? 0 : POLLOUT));
    pollfd polled[] = {
        {port_, port_events, 0},
        {signals_, POLLIN, 0},
        {out_.window > 0 && !queue_full ? child_.out : -1, POLLIN, 0},
        {err_.window > 0 && !queue_full ? child_.err : -1, POLLIN, 0},
        // With nothing to write, a pipe still reports that its reader has gone.
        {start_->pty && to_stdin_.empty() ? -1 : child_.in, static_cast<short>(to_stdin_.empty() ? 0 : POLLOUT), 0},
    };
    if (poll(polled, sizeof(polled) / sizeof(polled[0]), -1) < 0 && errno != EINTR) Die("poll");
    if (polled[1].revents != 0) Reap();
    if ((polled[0].revents & (POLLIN | POLLHUP)) != 0) {
      ReadPort();
      uint32_t type;
      std::string payload;
      while (NextFrame(&type, &payload)) HandleFrame(type, payload);
    }
    if (polled[2].revents != 0) ReadOutput(&child_.out, &out_);
    if (polled[3].revents != 0) ReadOutput(&child_.err, &err_);
    if (polled[4].revents != 0 && child_.in >= 0) {
      if ((polled[4].revents & POLLERR) != 0 && !start_->pty) {
        CloseStdin();
        QueueFrame(kNoReader, nullptr, 0);
      }
      FeedStdin();
    }
    FlushPort();
  }

  void Reap() {
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof(info)) > 0) {
    }
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != child_.pid) continue;  // an orphan
      exited_ = true;
      status_ = status;
    }
  }

  const int port_, signals_;
  const Start* start_ = nullptr;
  Child child_;
  Stream out_ = {kOutput}, err_ = {kError};
  std::string to_port_, from_port_, to_stdin_;
  size_t parsed_ = 0;
  bool attached_ = false, stdin_ended_ = false, exited_ = false;
  int status_ = 0;
};

}  // namespace

int main() {
  umask(0);
  mkdir("/dev", 0755);
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") != 0 && errno != EBUSY) Die("mount /dev");
  Mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  Mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  signal(SIGPIPE, SIG_IGN);
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
  const int signals = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signals < 0) Die("signalfd");
  LoadModules();
  HoldStaticKeys();
  StartOtherProcessors();
  g_port = OpenPort();
  Relay relay(g_port, signals);
  const Start start = relay.ReceiveStart();
  EnterRoot(start);
  relay.Ready();
  const int status = relay.Run(start, Spawn(start));
  // Nothing may write to the output folder after it was written back, so what the command left behind ends first.
  kill(-1, SIGKILL);
  SyncOut(start);
  relay.Finish(status);
  PowerOff();
}
