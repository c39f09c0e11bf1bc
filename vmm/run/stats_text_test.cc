#include "vmm/run/stats_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

MicroVmStats OneProcessor() {
  MicroVmStats stats;
  stats.processors.resize(1);
  return stats;
}

TEST(StatsTextTest, AnOrdinaryMachineHasExitsAloneAndForDebuggingOnly) {
  MicroVmStats stats = OneProcessor();
  stats.processors[0].pio_exits = 3;
  const auto lines = StatsLines(stats);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, LogLevel::kDebug);
  EXPECT_EQ(lines[0].text, "virtual processor 0: exits for ports 3, memory 0, MSRs 0, hypercalls 0, signals 0, others 0; nobody answered 0");
}

TEST(StatsTextTest, InterceptsAreALineAProcessorThatOthersRead) {
  MicroVmStats stats = OneProcessor();
  stats.processors[0].vtl_calls = 5;
  stats.processors[0].vtl_returns = 6;
  stats.processors[0].vtl_preemptions = 7;
  stats.processors[0].intercepts = {{.reads = 1, .writes = 2, .executes = 3, .retried = 4, .named = 5, .other_first = 1, .unexplained = 2}};
  const auto lines = StatsLines(stats);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1].level, LogLevel::kInfo);
  EXPECT_THAT(lines[1].text, StartsWith("virtual processor 0: intercepts of VTL0: reads 1, writes 2, executes 3, retried 4; "
                                        "VTL calls 5, returns 6, pre-emptions 7"));
  EXPECT_THAT(lines[1].text, EndsWith("; KVM named the page of 5, another was found first 1, unexplained 2; MSRs 0, ports 0"));
  stats.processors[0].intercepts = {{.msrs = 8, .ports = 9}};
  EXPECT_EQ(StatsLines(stats).at(1).level, LogLevel::kInfo);
  EXPECT_THAT(StatsLines(stats).at(1).text, EndsWith("; MSRs 8, ports 9"));
}

TEST(StatsTextTest, WithoutAnInterceptTheLineIsForDebugging) {
  MicroVmStats stats = OneProcessor();
  stats.processors[0].vtl_calls = 1;
  stats.processors[0].intercepts = {{.retried = 1}};
  EXPECT_EQ(StatsLines(stats).at(1).level, LogLevel::kDebug);
}

TEST(StatsTextTest, ADeviceIsALineThatOthersReadOnceAQueueWasStopped) {
  MicroVmStats stats;
  stats.devices = {{.name = "block0", .restarts = 2, .queue_faults = 1}, {.name = "rng", .restarts = 3}};
  const auto lines = StatsLines(stats);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].level, LogLevel::kInfo);
  EXPECT_EQ(lines[0].text, "device 'block0': queues stopped for what was in them 1, restarts 2");
  EXPECT_EQ(lines[1].level, LogLevel::kDebug);
}

TEST(StatsTextTest, ProtectionsAreOneLineOfTheMachine) {
  MicroVmStats stats;
  stats.protections = {.way = 'B', .rounds = true, .protected_pages = 1, .withdrawn_pages = 1, .written_pages = 1, .set = 2, .rounded = 3, .not_enforceable = 1, .too_many_pieces = 2, .host_refused = 1};
  const auto lines = StatsLines(stats);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].level, LogLevel::kInfo);
  EXPECT_EQ(lines[0].text, "page protections: 1 pages protected now, 1 withdrawn from devices, which have written to 1; pages set 2, rounded 3; calls refused 4; "
                           "by way B, what it cannot enforce is rounded");
  stats.protections = MicroVmStats::Protections{};
  EXPECT_EQ(StatsLines(stats).at(0).level, LogLevel::kDebug);
  stats.protections->unenforced_intercepts = 3;
  EXPECT_EQ(StatsLines(stats).at(0).level, LogLevel::kInfo);
  EXPECT_THAT(StatsLines(stats).at(0).text, EndsWith("; intercepts accepted that do not happen 3"));
  stats.protections->unenforced_intercepts = 0;
  stats.protections->host_refused = 1;
  EXPECT_EQ(StatsLines(stats).at(0).level, LogLevel::kInfo);
}

TEST(StatsTextTest, ABalloonIsTold) {
  MicroVmStats stats = OneProcessor();
  stats.balloon = {.target_bytes = 64 << 20, .held_bytes = 32 << 20, .discarded_bytes = 40 << 20};
  EXPECT_EQ(StatsLines(stats)[1].text, "balloon: target 64 MiB, held 32 MiB; given back 40 MiB, pages refused 0");
  EXPECT_EQ(StatsLines(stats)[1].level, LogLevel::kDebug);
  stats.balloon->refused_pages = 1;
  stats.balloon->guest_free_bytes = 5 << 20;
  EXPECT_EQ(StatsLines(stats)[1].text, "balloon: target 64 MiB, held 32 MiB; given back 40 MiB, pages refused 1; the guest had 5 MiB free");
  EXPECT_EQ(StatsLines(stats)[1].level, LogLevel::kInfo);
}

}  // namespace
}  // namespace vmm
