// The log: one line an event, as text or JSON, to standard error or a file.
//
// Shapes   text: "<time> <level> <component>: <message>"; json: one object a line {time, level, component, message}.
// Units    times are UTC with microseconds.
// Threads  Log: any; a line is one write(2), so lines never mix. ConfigureLog: once, before threads.
// Trust    messages may quote what a guest, peer or file said: control characters are escaped before they are written.
// Errors   a line that cannot be written is dropped; nothing waits for the log.
//
// What a guest can trigger again and again goes through GuestLog, never through Log.
#ifndef VMM_BASE_LOG_H_
#define VMM_BASE_LOG_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include "absl/strings/string_view.h"

namespace vmm {

enum class LogLevel : uint8_t { kError, kWarning, kInfo, kDebug };
enum class LogFormat : uint8_t { kText, kJson };

[[nodiscard]] std::optional<LogLevel> ParseLogLevel(absl::string_view name);
[[nodiscard]] absl::string_view LogLevelName(LogLevel level);

struct LogConfig {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  int fd = 2;  // borrowed, stays open for the life of the process
  // The terminal is in raw mode while a guest owns it: lines then need a carriage return.
  bool carriage_return = false;
};
void ConfigureLog(const LogConfig& config);
[[nodiscard]] LogConfig CurrentLogConfig();
// Alone of the configuration this changes while threads run.
void SetLogCarriageReturn(bool on);

[[nodiscard]] bool LogEnabled(LogLevel level) noexcept;
void Log(LogLevel level, absl::string_view component, absl::string_view message);
// The line without the write, for tests.
[[nodiscard]] std::string FormatLogLine(const LogConfig& config, int64_t unix_micros, LogLevel level,
                                        absl::string_view component, absl::string_view message);

// A log site that a guest can trigger: at most kBurst lines every kWindowMs, and one line that says how many were left out.
// One object a site (static or member). Atomic: any thread; the count may be off by the number of racing threads.
class GuestLog final {
 public:
  static constexpr uint32_t kBurst = 10;
  static constexpr int64_t kWindowMs = 5000;

  explicit constexpr GuestLog(absl::string_view component) : component_(component) {}
  GuestLog(const GuestLog&) = delete;
  GuestLog& operator=(const GuestLog&) = delete;

  void Write(LogLevel level, absl::string_view message) noexcept;
  // What Write decides, apart from the clock: whether this event may be written, and how many were left out before it.
  struct Verdict {
    bool write = false;
    uint64_t suppressed_before = 0;
  };
  [[nodiscard]] Verdict Admit(int64_t now_ms) noexcept;

 private:
  const absl::string_view component_;
  // All relaxed: statistics that order nothing.
  std::atomic<int64_t> window_start_ms_{INT64_MIN / 2};
  std::atomic<uint32_t> in_window_{0};
  std::atomic<uint64_t> suppressed_{0};
};

}  // namespace vmm

#endif  // VMM_BASE_LOG_H_
