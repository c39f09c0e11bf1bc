#include "devices/platform/rtc/cmos_rtc.h"

#include <time.h>

#include <algorithm>
#include <chrono>

namespace vmm {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
// The chip's promise: who sees no update in progress has this long to read.
constexpr int64_t kUpdateNotice = 244'000;
constexpr uint64_t kIndexPort = 0;

bool IsTime(uint8_t index) { return (index <= kCmosYear && index != 1 && index != 3 && index != 5) || index == kCmosCentury; }

}  // namespace

int64_t CmosRtc::HostClock() noexcept {
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

CmosRtc::Moment CmosRtc::NowLocked() const noexcept {
  const int64_t host = clock_() + offset_nanoseconds_;  // after 1970
  return {.seconds = host / kSecond + offset_seconds_, .nanoseconds = host % kSecond};
}

void CmosRtc::BeginLocked(int64_t seconds) noexcept {
  const int64_t host = clock_();
  offset_nanoseconds_ = (kSecond - host % kSecond) % kSecond;
  offset_seconds_ = seconds - (host + offset_nanoseconds_) / kSecond;
}

void CmosRtc::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  if (data.size() != 1) return;
  const MutexLock lock(mutex_);
  // The index cannot be read on a PC; its port floats.
  if (offset != kIndexPort) data[0] = std::byte{ReadLocked()};
}

void CmosRtc::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  if (data.size() != 1) return;
  const MutexLock lock(mutex_);
  const auto value = std::to_integer<uint8_t>(data[0]);
  if (offset == kIndexPort) {
    index_ = value % kCmosBytes;
  } else {
    WriteLocked(value);
  }
}

uint8_t CmosRtc::ReadLocked() noexcept {
  switch (index_) {
    case kCmosRegisterA: {
      const bool stopped = (bytes_[kCmosRegisterB] & kCmosSet) != 0;
      const bool is_near = NowLocked().nanoseconds >= kSecond - kUpdateNotice;
      return bytes_[kCmosRegisterA] | (!stopped && is_near ? kCmosUpdateInProgress : 0);
    }
    case kCmosRegisterC: return 0;  // nothing is pending
    case kCmosRegisterD: return kCmosValid;
    default: break;
  }
  if (IsTime(index_) && (bytes_[kCmosRegisterB] & kCmosSet) == 0) ShowTimeLocked(NowLocked().seconds);
  return bytes_[index_];
}

void CmosRtc::WriteLocked(uint8_t value) noexcept {
  switch (index_) {
    case kCmosRegisterA: bytes_[index_] = value & static_cast<uint8_t>(~kCmosUpdateInProgress); return;
    case kCmosRegisterC:
    case kCmosRegisterD: return;
    case kCmosRegisterB: {
      const bool was_set = (bytes_[index_] & kCmosSet) != 0;
      const bool is_set = (value & kCmosSet) != 0;
      // SET stops the calendar where it is; its end starts it from what has been written.
      if (!was_set && is_set) ShowTimeLocked(NowLocked().seconds);
      bytes_[index_] = value;
      if (was_set && !is_set) BeginLocked(TimeLocked());
      return;
    }
    default: break;
  }
  if (IsTime(index_) && (bytes_[kCmosRegisterB] & kCmosSet) == 0) {
    ShowTimeLocked(NowLocked().seconds);
    bytes_[index_] = value;
    BeginLocked(TimeLocked());
    return;
  }
  bytes_[index_] = value;
}

uint8_t CmosRtc::Form(unsigned value) const noexcept {
  return static_cast<uint8_t>((bytes_[kCmosRegisterB] & kCmosBinary) != 0 ? value : value / 10 << 4 | value % 10);
}

unsigned CmosRtc::Number(uint8_t form) const noexcept {
  return (bytes_[kCmosRegisterB] & kCmosBinary) != 0 ? form : (form >> 4) * 10u + (form & 0xfu);
}

void CmosRtc::ShowTimeLocked(int64_t seconds) noexcept {
  using namespace std::chrono;
  const sys_seconds time{std::chrono::seconds(seconds)};
  const sys_days day = floor<days>(time);
  const year_month_day date{day};
  const hh_mm_ss clock{time - day};
  const auto hours = static_cast<unsigned>(clock.hours().count());
  const int full_year = std::clamp(static_cast<int>(date.year()), 0, 9999);
  bytes_[kCmosSeconds] = Form(static_cast<unsigned>(clock.seconds().count()));
  bytes_[kCmosMinutes] = Form(static_cast<unsigned>(clock.minutes().count()));
  if ((bytes_[kCmosRegisterB] & kCmos24Hours) != 0) {
    bytes_[kCmosHours] = Form(hours);
  } else {
    bytes_[kCmosHours] = Form(hours % 12 == 0 ? 12 : hours % 12) | (hours >= 12 ? kCmosPm : 0);
  }
  bytes_[kCmosDayOfWeek] = Form(weekday(day).c_encoding() + 1);
  bytes_[kCmosDayOfMonth] = Form(static_cast<unsigned>(date.day()));
  bytes_[kCmosMonth] = Form(static_cast<unsigned>(date.month()));
  bytes_[kCmosYear] = Form(static_cast<unsigned>(full_year % 100));
  bytes_[kCmosCentury] = Form(static_cast<unsigned>(full_year / 100));
}

int64_t CmosRtc::TimeLocked() const noexcept {
  using namespace std::chrono;
  unsigned hours = Number(bytes_[kCmosHours]);
  if ((bytes_[kCmosRegisterB] & kCmos24Hours) == 0) {
    const uint8_t form = bytes_[kCmosHours];
    hours = Number(form & static_cast<uint8_t>(~kCmosPm)) % 12 + ((form & kCmosPm) != 0 ? 12 : 0);
  }
  const int full_year = static_cast<int>(Number(bytes_[kCmosCentury]) * 100 + Number(bytes_[kCmosYear]));
  // From the first of January on by numbers that need be no date.
  const sys_days first = year(full_year) / January / 1;
  const unsigned month_number = Number(bytes_[kCmosMonth]);
  const year_month month = year(full_year) / January + months(static_cast<int>(month_number) - 1);
  const sys_days day = sys_days(month / 1) + days(static_cast<int>(Number(bytes_[kCmosDayOfMonth])) - 1);
  const sys_seconds time = (month_number == 0 ? first : day) + std::chrono::hours(hours) +
                           minutes(Number(bytes_[kCmosMinutes])) + seconds(Number(bytes_[kCmosSeconds]));
  return time.time_since_epoch().count();
}

}  // namespace vmm
