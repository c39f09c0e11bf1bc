#include "sandbox/words_watch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<WordsWatch>> WordsWatch::Create(EventLoop& loop, ChildProcess& child, std::string name) {
  std::unique_ptr<WordsWatch> watch(new WordsWatch(loop, child, std::move(name)));
  RETURN_IF_ERROR(loop.Watch(child.words_fd(), EPOLLIN, [raw = watch.get()](uint32_t) { raw->OnWords(); }));
  watch->watching_ = true;
  return watch;
}

WordsWatch::~WordsWatch() {
  if (watching_) loop_.Unwatch(child_.words_fd());
}

void WordsWatch::OnWords() {
  const std::string words = child_.TakeWords();
  if (words.empty()) {  // its end
    loop_.Unwatch(child_.words_fd());
    watching_ = false;
    return;
  }
  for (const absl::string_view line : absl::StrSplit(words, '\n', absl::SkipEmpty())) {
    log_.Write(LogLevel::kWarning, absl::StrCat(name_, ": ", line));
  }
}

}  // namespace vmm
