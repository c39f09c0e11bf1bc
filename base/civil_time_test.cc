#include "base/civil_time.h"

#include <time.h>

#include <gtest/gtest.h>

namespace vmm {
namespace {

// Against the C library: each day of 600 years, at a time that moves through the day.
TEST(CivilTimeTest, AgreesWithGmtime) {
  for (int64_t day = 0; day < 600 * 366; ++day) {
    const time_t seconds = day * 86'400 + day * 7'919 % 86'400;
    tm expected{};
    ::gmtime_r(&seconds, &expected);
    const CivilTime civil = CivilTimeOf(seconds);
    ASSERT_EQ(civil.year, expected.tm_year + 1900) << seconds;
    ASSERT_EQ(civil.month, expected.tm_mon + 1) << seconds;
    ASSERT_EQ(civil.day, expected.tm_mday) << seconds;
    ASSERT_EQ(civil.hour, expected.tm_hour) << seconds;
    ASSERT_EQ(civil.minute, expected.tm_min) << seconds;
    ASSERT_EQ(civil.second, expected.tm_sec) << seconds;
  }
}

}  // namespace
}  // namespace vmm
