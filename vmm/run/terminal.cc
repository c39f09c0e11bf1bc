#include "vmm/run/terminal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"

namespace vmm {
namespace {

// What the crash handlers give back. Written before they are installed.
termios g_saved;

constexpr int kCrashSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};

// From the background the terminal is the shell's: tcsetattr would stop this process (SIGTTOU).
bool InForeground() { return ::isatty(STDIN_FILENO) != 0 && ::tcgetpgrp(STDIN_FILENO) == ::getpgrp(); }

void RestoreAndDie(int signal) {
  // In the background this would stop the process, which then had not crashed for whoever waits for it.
  if (::tcgetpgrp(STDIN_FILENO) == ::getpgrp()) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_saved);
  ::raise(signal);  // SA_RESETHAND: now the default action, with its core dump and its status
}

}  // namespace

RawTerminal::RawTerminal() {
  if (!InForeground()) return;
  if (::tcgetattr(STDIN_FILENO, &g_saved) != 0) return;
  for (const int signal : kCrashSignals) {
    struct sigaction action{};
    action.sa_handler = &RestoreAndDie;
    action.sa_flags = SA_RESETHAND | SA_NODEFER;
    ::sigaction(signal, &action, nullptr);
  }
  active_ = true;
  Reenter();
}

void RawTerminal::Reenter() {
  if (!active_ || !InForeground()) return;
  termios raw = g_saved;
  ::cfmakeraw(&raw);
  // TCSANOW: what the person has typed ahead is the guest's.
  ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  SetLogCarriageReturn(CurrentLogConfig().fd == STDERR_FILENO && ::isatty(STDERR_FILENO) != 0);
}

RawTerminal::~RawTerminal() {
  if (!active_) return;
  // TCSANOW: a terminal that takes no output (Ctrl-S, a dead line) must not keep the program from ending.
  if (InForeground()) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_saved);
  SetLogCarriageReturn(false);
  // The handlers stay: giving back once more changes nothing, and the monitor may not change dispositions any more.
}

}  // namespace vmm
