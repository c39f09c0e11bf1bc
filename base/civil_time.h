// A moment as a date and a time of day in UTC. gmtime_r does the same, but opens the time zone file when it is first called, which a
// confined process must not, and is not async-signal-safe.
//
// Units    seconds since 1970-01-01 00:00:00 UTC, not before it.
// Threads  any; pure, async-signal-safe.
// Source   H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
#ifndef VMM_BASE_CIVIL_TIME_H_
#define VMM_BASE_CIVIL_TIME_H_

#include <cstdint>

namespace vmm {

struct CivilTime {
  int64_t year;
  int month, day, hour, minute, second;  // month and day from 1
};

constexpr CivilTime CivilTimeOf(int64_t unix_seconds) noexcept {
  // Years begin in March here, so that the leap day is a year's last; an era is 400 of them.
  constexpr int64_t kDaysToEpoch = 719'468, kDaysOfEra = 146'097;
  const int64_t days = unix_seconds / 86'400 + kDaysToEpoch;
  const int64_t era = days / kDaysOfEra, day_of_era = days % kDaysOfEra;
  const int64_t year_of_era = (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t month_from_march = (5 * day_of_year + 2) / 153;
  const int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  const int64_t of_day = unix_seconds % 86'400;
  return {.year = year_of_era + era * 400 + (month <= 2 ? 1 : 0),
          .month = static_cast<int>(month),
          .day = static_cast<int>(day_of_year - (153 * month_from_march + 2) / 5 + 1),
          .hour = static_cast<int>(of_day / 3'600),
          .minute = static_cast<int>(of_day / 60 % 60),
          .second = static_cast<int>(of_day % 60)};
}

}  // namespace vmm

#endif  // VMM_BASE_CIVIL_TIME_H_
