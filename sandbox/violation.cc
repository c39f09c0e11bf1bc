// ASYNC-SIGNAL-SAFE ONLY, but for InstallViolationHandler. This runs inside whatever was interrupted: any lock, malloc's too, may
// be held. System calls, the stack, constants and atomics; nothing else.
#include "sandbox/violation.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/civil_time.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "sandbox/syscall_names.h"

// long vmm_let_through(long number, const uint64_t arguments[6]). The filter knows the address behind its instruction.
asm(R"(
.text
.globl vmm_let_through
.hidden vmm_let_through
.type vmm_let_through, @function
vmm_let_through:
  mov %rdi, %rax
  mov %rsi, %rcx
  mov 0(%rcx), %rdi
  mov 8(%rcx), %rsi
  mov 16(%rcx), %rdx
  mov 24(%rcx), %r10
  mov 32(%rcx), %r8
  mov 40(%rcx), %r9
  syscall
.globl vmm_let_through_return
.hidden vmm_let_through_return
vmm_let_through_return:
  ret
.size vmm_let_through, .-vmm_let_through
)");
extern "C" {
__attribute__((visibility("hidden"))) long vmm_let_through(long number, const uint64_t* arguments);
__attribute__((visibility("hidden"))) extern const char vmm_let_through_return[];
}

namespace vmm {
namespace {

constexpr int kSeccompCode = 1;           // si_code SYS_SECCOMP
constexpr long kCallThatNobodyHas = 9999;  // neither a policy nor the kernel
constexpr int kMostNumbers = 512;

// Written once, before the first filter.
ViolationMode g_mode = ViolationMode::kDie;
ViolationOutput g_output = ViolationOutput::kLastWords;
struct sigaction g_previous;
std::atomic<const SeccompPolicy*> g_first_policy{nullptr};
constinit thread_local const SeccompPolicy* t_policy = nullptr;
// A bit a number that was let through and reported. Relaxed: nothing is published by it.
std::atomic<uint64_t> g_reported[kMostNumbers / 64];
std::atomic<int> g_let_through{0};

class Line {
 public:
  explicit Line(std::span<char> out) : out_(out) {}
  Line& Text(const char* text) {
    for (; *text != '\0'; ++text) Put(*text);
    return *this;
  }
  Line& Name(const char* name) {
    for (; *name != '\0'; ++name) Put(*name > ' ' && *name < 0x7f && *name != '"' && *name != '\\' ? *name : '.');
    return *this;
  }
  Line& Decimal(int64_t value, int digits = 1) {
    if (value < 0) Put('-');
    uint64_t left = value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    char reversed[20];
    int count = 0;
    for (; left != 0 || count < digits; left /= 10) reversed[count++] = static_cast<char>('0' + left % 10);
    while (count > 0) Put(reversed[--count]);
    return *this;
  }
  Line& Hex(uint64_t value) {
    Text("0x");
    bool leading = true;
    for (int shift = 60; shift >= 0; shift -= 4) {
      const unsigned digit = value >> shift & 15;
      if (leading && digit == 0 && shift != 0) continue;
      leading = false;
      Put("0123456789abcdef"[digit]);
    }
    return *this;
  }
  void Put(char c) {
    if (size_ < out_.size()) out_[size_++] = c;
  }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  std::span<char> out_;
  size_t size_ = 0;
};

const SeccompCheckedCall* FindChecked(const SeccompPolicy* policy, int call) {
  if (policy == nullptr) return nullptr;
  for (const SeccompCheckedCall& checked : policy->checked) {
    if (checked.call == call) return &checked;
  }
  return nullptr;
}

// As base/log.h writes it: UTC, microseconds.
void Time(Line& line) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const CivilTime utc = CivilTimeOf(now.tv_sec);
  line.Decimal(utc.year, 4).Text("-").Decimal(utc.month, 2).Text("-").Decimal(utc.day, 2).Text("T").Decimal(utc.hour, 2).Text(":");
  line.Decimal(utc.minute, 2).Text(":").Decimal(utc.second, 2).Text(".").Decimal(now.tv_nsec / 1000, 6).Text("Z");
}

void Report(const Violation& violation) {
  char text[640];
  const size_t bytes = FormatViolation(violation, std::span(text, sizeof(text) - 1));
  text[bytes] = '\0';
  char buffer[800];
  Line line(std::span(buffer, sizeof(buffer) - 2));
  int fd = STDERR_FILENO;
  bool carriage_return = false;
  const char* const level = violation.let_through ? "warning" : "error";
  if (g_output == ViolationOutput::kLastWords) {
    line.Text(text);
  } else {
    const LogConfig log = CurrentLogConfig();
    fd = log.fd;
    carriage_return = log.carriage_return;
    const bool json = log.format == LogFormat::kJson;
    if (json) line.Text("{\"time\":\"");
    Time(line);
    line.Text(json ? "\",\"level\":\"" : " ").Text(level).Text(json ? "\",\"component\":\"sandbox\",\"message\":\"" : " sandbox: ");
    line.Text(text);
    if (json) line.Text("\"}");
    // As the log itself: nobody waits for who reads it.
    pollfd writable{fd, POLLOUT, 0};
    if (::poll(&writable, 1, 0) <= 0 || (writable.revents & POLLERR) != 0) return;
  }
  size_t size = line.size();
  if (carriage_return) buffer[size++] = '\r';
  buffer[size++] = '\n';
  (void)!::write(fd, buffer, size);
}

// Those whose child would go on in the middle of the handler, on a stack that is not its own.
bool CannotBeLetThrough(int call, uint64_t flags) {
  return call == SYS_vfork || call == SYS_clone3 || (call == SYS_clone && (flags & CLONE_VM) != 0);
}

void OnViolation(int signal, siginfo_t* info, void* raw) {
  const int error = errno;
  auto& registers = static_cast<ucontext_t*>(raw)->uc_mcontext.gregs;
  if (info->si_code == kSeccompCode) {
    char name[17] = {};
    ::prctl(PR_GET_NAME, name, 0, 0, 0);
    Violation violation{.thread = name,
                        .thread_id = static_cast<int>(::syscall(SYS_gettid)),
                        .policy = t_policy != nullptr ? t_policy : g_first_policy.load(std::memory_order_relaxed),
                        .call = info->si_syscall,
                        .from = reinterpret_cast<uint64_t>(info->si_call_addr)};
    constexpr int kRegisters[] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
    for (int i = 0; i < 6; ++i) violation.arguments[i] = static_cast<uint64_t>(registers[kRegisters[i]]);
    if (g_mode == ViolationMode::kLetThrough) {
      violation.let_through = !CannotBeLetThrough(violation.call, violation.arguments[0]);
      bool reported = false;
      if (violation.call >= 0 && violation.call < kMostNumbers) {
        const uint64_t bit = uint64_t{1} << (violation.call % 64);
        reported = (g_reported[violation.call / 64].fetch_or(bit, std::memory_order_relaxed) & bit) != 0;
      }
      if (!reported) {
        g_let_through.fetch_add(1, std::memory_order_relaxed);
        Report(violation);
      }
      registers[REG_RAX] = violation.let_through ? vmm_let_through(violation.call, violation.arguments) : -ENOSYS;
      errno = error;
      return;
    }
    Report(violation);
  }
  if ((g_previous.sa_flags & SA_SIGINFO) != 0) {
    if (g_previous.sa_sigaction != nullptr) g_previous.sa_sigaction(signal, info, raw);
  } else if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    g_previous.sa_handler(signal);
  }
  // SIGSYS is blocked here, so this kills.
  ::syscall(kCallThatNobodyHas);
  __builtin_trap();  // there is no filter: somebody sent the signal
}

}  // namespace

size_t FormatViolation(const Violation& violation, std::span<char> out) noexcept {
  Line line(out);
  line.Text("thread '").Name(violation.thread).Text("' (id ").Decimal(violation.thread_id).Text(") made system call ");
  line.Decimal(violation.call);
  if (const char* name = SyscallName(violation.call); name != nullptr) line.Text(" (").Text(name).Text(")");
  const SeccompCheckedCall* const checked = FindChecked(violation.policy, violation.call);
  const char* const policy = violation.policy != nullptr ? violation.policy->name : "?";
  if (checked == nullptr) {
    line.Text(", which its policy '").Text(policy).Text("' does not have");
  } else {
    line.Text(" with arguments that its policy '").Text(policy).Text("' does not allow:");
    const char* comma = " ";
    for (int i = 0; i < 6; ++i) {
      if (checked->arguments[i] == nullptr || checked->arguments[i][0] == '\0') continue;
      line.Text(comma).Text(checked->arguments[i]).Text(" ").Hex(violation.arguments[i]);
      comma = ", ";
    }
  }
  line.Text(violation.let_through ? "; LET THROUGH" : "; refused").Text("; all arguments");
  for (const uint64_t argument : violation.arguments) line.Text(" ").Hex(argument);
  line.Text(", called from ").Hex(violation.from);
  return line.size();
}

absl::Status InstallViolationHandler(ViolationMode mode, ViolationOutput output) {
  struct sigaction current{};
  if (::sigaction(SIGSYS, nullptr, &current) != 0) return ErrnoStatus(errno, "read the handler of SIGSYS");
  const bool ours = (current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == &OnViolation;
  if (ours && (mode != g_mode || output != g_output)) {
    return absl::FailedPreconditionError("install the handler of SIGSYS: this process has one that treats violations otherwise");
  }
  if (ours) return absl::OkStatus();
  g_mode = mode;
  g_output = output;
  g_previous = current;
  struct sigaction action{};
  action.sa_sigaction = &OnViolation;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;  // not SA_NODEFER: see the header
  if (::sigaction(SIGSYS, &action, nullptr) != 0) return ErrnoStatus(errno, "install the handler of SIGSYS");
  return absl::OkStatus();
}

void SetThreadPolicy(const SeccompPolicy& policy) noexcept {
  t_policy = &policy;
  const SeccompPolicy* none = nullptr;
  g_first_policy.compare_exchange_strong(none, &policy, std::memory_order_relaxed);
}

int ViolationsLetThrough() noexcept { return g_let_through.load(std::memory_order_relaxed); }

uint64_t LetThroughAddress() noexcept { return reinterpret_cast<uint64_t>(vmm_let_through_return); }

}  // namespace vmm
