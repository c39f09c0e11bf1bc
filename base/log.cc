#include "base/log.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/civil_time.h"

namespace vmm {
namespace {

// Written once before threads start, but for carriage_return.
LogConfig g_config;
std::atomic<bool> g_carriage_return{false};

int64_t NowMicros(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

// A guest's bytes must not be able to move the reader's cursor or forge a second line.
void AppendEscaped(std::string& out, absl::string_view text, bool json) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (json && (c == '"' || c == '\\')) {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f || byte >= 0x80) {
      if (json) {
        absl::StrAppendFormat(&out, "\\u%04x", byte);
      } else {
        absl::StrAppendFormat(&out, "\\x%02x", byte);
      }
    } else {
      out.push_back(c);
    }
  }
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(absl::string_view name) {
  for (const LogLevel level : {LogLevel::kError, LogLevel::kWarning, LogLevel::kInfo, LogLevel::kDebug}) {
    if (name == LogLevelName(level)) return level;
  }
  return std::nullopt;
}

absl::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kError: return "error";
    case LogLevel::kWarning: return "warning";
    case LogLevel::kInfo: return "info";
    case LogLevel::kDebug: return "debug";
  }
  return "unknown";
}

void ConfigureLog(const LogConfig& config) {
  g_config = config;
  SetLogCarriageReturn(config.carriage_return);
}

LogConfig CurrentLogConfig() {
  LogConfig config = g_config;
  config.carriage_return = g_carriage_return.load(std::memory_order_relaxed);
  return config;
}

// relaxed: a line more or less with the old ending is harmless.
void SetLogCarriageReturn(bool on) { g_carriage_return.store(on, std::memory_order_relaxed); }

bool LogEnabled(LogLevel level) noexcept { return level <= g_config.level; }

std::string FormatLogLine(const LogConfig& config, int64_t unix_micros, LogLevel level, absl::string_view component,
                          absl::string_view message) {
  const CivilTime utc = CivilTimeOf(unix_micros / 1'000'000);
  const std::string when = absl::StrFormat("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.year, utc.month, utc.day, utc.hour,
                                           utc.minute, utc.second, unix_micros % 1'000'000);
  std::string line;
  line.reserve(message.size() + 96);
  if (config.format == LogFormat::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", when, "\",\"level\":\"", LogLevelName(level), "\",\"component\":\"");
    AppendEscaped(line, component, true);
    line += "\",\"message\":\"";
    AppendEscaped(line, message, true);
    line += "\"}";
  } else {
    absl::StrAppend(&line, when, " ", LogLevelName(level), " ");
    AppendEscaped(line, component, false);
    line += ": ";
    AppendEscaped(line, message, false);
  }
  if (config.carriage_return) line.push_back('\r');
  line.push_back('\n');
  return line;
}

void Log(LogLevel level, absl::string_view component, absl::string_view message) {
  if (!LogEnabled(level)) return;
  const LogConfig config = CurrentLogConfig();
  const std::string line = FormatLogLine(config, NowMicros(CLOCK_REALTIME), level, component, message);
  // A processor must not wait for whoever reads the log: a pipe that is full, a terminal on hold. POLLOUT of a pipe means
  // room for PIPE_BUF bytes, which no line of ours exceeds but by a path; two threads at the last page may still wait.
  pollfd writable{config.fd, POLLOUT, 0};
  // POLLERR: nobody is left to read, and SIGPIPE would end a program that embeds us.
  if (::poll(&writable, 1, 0) <= 0 || (writable.revents & POLLERR) != 0) return;
  [[maybe_unused]] const ssize_t written = ::write(config.fd, line.data(), line.size());
}

GuestLog::Verdict GuestLog::Admit(int64_t now_ms) noexcept {
  if (now_ms - window_start_ms_.load(std::memory_order_relaxed) >= kWindowMs) {
    window_start_ms_.store(now_ms, std::memory_order_relaxed);
    in_window_.store(0, std::memory_order_relaxed);
  }
  if (in_window_.fetch_add(1, std::memory_order_relaxed) >= kBurst) {
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return {};
  }
  return {.write = true, .suppressed_before = suppressed_.exchange(0, std::memory_order_relaxed)};
}

void GuestLog::Write(LogLevel level, absl::string_view message) noexcept {
  if (!LogEnabled(level)) return;
  const Verdict verdict = Admit(NowMicros(CLOCK_MONOTONIC) / 1000);
  if (!verdict.write) return;
  if (verdict.suppressed_before != 0) {
    Log(level, component_, absl::StrCat("(", verdict.suppressed_before, " more like the following were left out)"));
  }
  Log(level, component_, message);
}

}  // namespace vmm
