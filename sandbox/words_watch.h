// Puts what a device process says on its standard error into the log while it runs: for development, where violations are reported
// and let through. Otherwise its words are kept for its end (child_process.h).
//
// Threads  confined: the loop's.
// Trust    a hostile process can say anything: at most GuestLog's number of lines, escaped by the log.
// Errors   Create: Status of EventLoop::Watch.
#ifndef VMM_SANDBOX_WORDS_WATCH_H_
#define VMM_SANDBOX_WORDS_WATCH_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "sandbox/child_process.h"

namespace vmm {

class WordsWatch final {
 public:
  // `loop` and `child` outlive it.
  static absl::StatusOr<std::unique_ptr<WordsWatch>> Create(EventLoop& loop, ChildProcess& child, std::string name);
  WordsWatch(const WordsWatch&) = delete;
  WordsWatch& operator=(const WordsWatch&) = delete;
  ~WordsWatch();

 private:
  WordsWatch(EventLoop& loop, ChildProcess& child, std::string name) : loop_(loop), child_(child), name_(std::move(name)) {}
  void OnWords();

  EventLoop& loop_;
  ChildProcess& child_;
  const std::string name_;
  GuestLog log_{"sandbox"};
  bool watching_ = false;
};

}  // namespace vmm

#endif  // VMM_SANDBOX_WORDS_WATCH_H_
