// The person's terminal while a guest owns it: raw mode, given back on every way out.
//
// Threads  confined to main's; the crash handlers touch only what is async-signal-safe.
// Errors   none; where standard input is no terminal there is nothing to do.
//
// Not covered: SIGKILL, which no program sees. `stty sane` or `reset` mends the terminal then.
#ifndef VMM_VMM_RUN_TERMINAL_H_
#define VMM_VMM_RUN_TERMINAL_H_

namespace vmm {

class RawTerminal final {
 public:
  // Standard input, if it is a terminal of which we are the foreground; else does nothing.
  RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal();

  [[nodiscard]] bool active() const { return active_; }
  // After a stop by SIGSTOP the shell has put its own modes in place: raw again, unless we go on in the background.
  void Reenter();

 private:
  bool active_ = false;
};

}  // namespace vmm

#endif  // VMM_VMM_RUN_TERMINAL_H_
