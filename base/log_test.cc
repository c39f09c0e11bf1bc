#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(LogTest, TextLineHasTimeLevelComponentAndMessage) {
  EXPECT_EQ(FormatLogLine({}, 1'000'002, LogLevel::kInfo, "serial", "ready"),
            "1970-01-01T00:00:01.000002Z info serial: ready\n");
}

TEST(LogTest, TextEscapesControlCharactersThatAGuestChose) {
  EXPECT_EQ(FormatLogLine({}, 0, LogLevel::kError, "vcpu", "a\nb\x1b[2J\xff"),
            "1970-01-01T00:00:00.000000Z error vcpu: a\\nb\\x1b[2J\\xff\n");
}

TEST(LogTest, JsonEscapesQuotesAndControlCharacters) {
  LogConfig config;
  config.format = LogFormat::kJson;
  EXPECT_EQ(FormatLogLine(config, 0, LogLevel::kWarning, "x", "say \"hi\"\\\n\x01"),
            "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"level\":\"warning\",\"component\":\"x\","
            "\"message\":\"say \\\"hi\\\"\\\\\\n\\u0001\"}\n");
}

TEST(LogTest, CarriageReturnIsAddedForATerminalInRawMode) {
  LogConfig config;
  config.carriage_return = true;
  EXPECT_TRUE(FormatLogLine(config, 0, LogLevel::kInfo, "x", "y").ends_with("y\r\n"));
}

TEST(LogTest, ParseLogLevelRefusesUnknownNames) {
  EXPECT_EQ(ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(ParseLogLevel("verbose"), std::nullopt);
  EXPECT_EQ(ParseLogLevel(""), std::nullopt);
}

TEST(LogTest, AReaderThatDoesNotReadCostsLinesNotTime) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  LogConfig config;
  config.fd = pipe[1];
  ConfigureLog(config);
  // Ten times what a pipe holds; the descriptor is a blocking one.
  for (int i = 0; i < 10'000; ++i) Log(LogLevel::kError, "test", "a line that nobody reads");
  ConfigureLog({});
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(LogTest, AReaderThatHasGoneIsNoSigpipe) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  ::close(pipe[0]);
  LogConfig config;
  config.fd = pipe[1];
  ConfigureLog(config);
  Log(LogLevel::kError, "test", "to nobody");
  ConfigureLog({});
  ::close(pipe[1]);
}

TEST(GuestLogTest, AdmitsABurstThenCountsWhatItLeavesOut) {
  GuestLog log("test");
  for (uint32_t i = 0; i < GuestLog::kBurst; ++i) EXPECT_TRUE(log.Admit(1000).write);
  for (int i = 0; i < 7; ++i) EXPECT_FALSE(log.Admit(1000 + i).write);
  const GuestLog::Verdict later = log.Admit(1000 + GuestLog::kWindowMs);
  EXPECT_TRUE(later.write);
  EXPECT_EQ(later.suppressed_before, 7u);
  EXPECT_EQ(log.Admit(1000 + GuestLog::kWindowMs).suppressed_before, 0u);
}

}  // namespace
}  // namespace vmm
