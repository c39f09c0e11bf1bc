// In children with a terminal of their own: the modes of a terminal and who is in its foreground belong to processes.
#include "vmm/run/terminal.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <functional>

#include <gtest/gtest.h>

namespace vmm {
namespace {

class RawTerminalTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::openpty(&master_, &slave_, nullptr, nullptr, nullptr), 0); }
  void TearDown() override {
    ::close(master_);
    ::close(slave_);
  }
  [[nodiscard]] bool Cooked() const {
    termios modes{};
    ::tcgetattr(slave_, &modes);
    return (modes.c_lflag & ICANON) != 0;
  }
  static constexpr int kStopped = 200;
  // Runs `body` as a shell would: in a group of its own in the foreground of its terminal, standard input. What it returns,
  // 128 + n if signal n ended it, or kStopped.
  int InForeground(const std::function<int()>& body) {
    const pid_t shell = ::fork();
    if (shell == 0) {
      ::setsid();
      ::ioctl(slave_, TIOCSCTTY, 0);
      ::dup2(slave_, STDIN_FILENO);
      ::signal(SIGTTOU, SIG_IGN);
      int ready[2];
      if (::pipe(ready) != 0) ::_exit(201);
      const pid_t program = ::fork();
      if (program == 0) {
        ::signal(SIGTTOU, SIG_DFL);
        ::close(ready[1]);
        char byte;
        (void)!::read(ready[0], &byte, 1);
        ::_exit(body());
      }
      ::setpgid(program, program);
      ::tcsetpgrp(STDIN_FILENO, program);
      ::close(ready[1]);
      int status = 0;
      ::waitpid(program, &status, WUNTRACED);
      if (WIFSTOPPED(status)) ::kill(program, SIGKILL);
      ::_exit(WIFSTOPPED(status) ? kStopped : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    }
    int status = 0;
    ::waitpid(shell, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  int master_ = -1, slave_ = -1;
};

TEST_F(RawTerminalTest, IsRawWhileItLivesAndGivenBack) {
  const int status = InForeground([this] {
    {
      RawTerminal terminal;
      if (!terminal.active() || Cooked()) return 1;
    }
    return Cooked() ? 0 : 2;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(RawTerminalTest, ACrashGivesTheTerminalBackAndIsStillACrash) {
  const int status = InForeground([] {
    RawTerminal terminal;
    ::raise(SIGSEGV);
    return 0;
  });
  EXPECT_EQ(status, 128 + SIGSEGV);
  EXPECT_TRUE(Cooked());
}

// Not even the end may touch the terminal then: that would stop the process (SIGTTOU), for ever if nobody looks.
TEST_F(RawTerminalTest, InTheBackgroundTheTerminalIsLeftAlone) {
  const int status = InForeground([this] {
    RawTerminal terminal;
    // What a shell does after Ctrl-Z: its own modes, and itself in the foreground.
    ::signal(SIGTTOU, SIG_IGN);
    termios modes{};
    ::tcgetattr(STDIN_FILENO, &modes);
    modes.c_lflag |= ICANON;
    ::tcsetattr(STDIN_FILENO, TCSANOW, &modes);
    ::tcsetpgrp(STDIN_FILENO, ::getppid());
    ::signal(SIGTTOU, SIG_DFL);
    terminal.Reenter();
    return Cooked() ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(Cooked());
}

TEST_F(RawTerminalTest, ACrashInTheBackgroundIsNoStop) {
  const int status = InForeground([] {
    RawTerminal terminal;
    ::signal(SIGTTOU, SIG_IGN);
    ::tcsetpgrp(STDIN_FILENO, ::getppid());
    ::signal(SIGTTOU, SIG_DFL);
    ::raise(SIGSEGV);
    return 0;
  });
  EXPECT_EQ(status, 128 + SIGSEGV);
}

TEST_F(RawTerminalTest, WithoutATerminalItDoesNothing) {
  const int status = InForeground([this] {
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    RawTerminal terminal;
    return terminal.active() || !Cooked() ? 1 : 0;
  });
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace vmm
