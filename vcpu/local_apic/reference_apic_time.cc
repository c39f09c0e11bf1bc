#include "vcpu/local_apic/reference_apic_time.h"

namespace vmm {
namespace {

__extension__ using Uint128 = unsigned __int128;

}  // namespace

// The least TSC value whose reference time is Now: the inverse of ticks = ((tsc * scale) >> 64) + offset. The offset may be
// negative, so the difference is taken modulo 2^64.
uint64_t ReferenceApicTime::Tsc() noexcept {
  if (!tsc_) return 0;
  const uint64_t ticks = clock_.Now().raw() - tsc_->offset;
  const Uint128 tsc = ((Uint128{ticks} << 64) + tsc_->scale - 1) / tsc_->scale;
  return tsc > ~uint64_t{0} ? ~uint64_t{0} : static_cast<uint64_t>(tsc);
}

void ReferenceApicTime::SetTicks(uint64_t ticks) noexcept {
  deadline_.Set(HvTicks(ticks / kTicksPerHvTick + (ticks % kTicksPerHvTick != 0 ? 1 : 0)));
}

void ReferenceApicTime::SetTsc(uint64_t tsc) noexcept {
  if (!tsc_) return;
  // The least at which Tsc() is `tsc` or more. Zero is no deadline, and passes at once.
  const uint64_t rounded = tsc == 0 ? 0 : static_cast<uint64_t>(Uint128{tsc - 1} * tsc_->scale >> 64) + 1;
  const uint64_t at = rounded + tsc_->offset;
  // A time of before the partition's start has passed, and one beyond the end of reference time does not come.
  const bool is_negative = static_cast<int64_t>(tsc_->offset) < 0 && rounded < 0 - tsc_->offset;
  const bool is_beyond = static_cast<int64_t>(tsc_->offset) >= 0 && at < rounded;
  deadline_.Set(is_negative ? HvTicks() : is_beyond ? HvTicks(~uint64_t{0}) : HvTicks(at));
}

}  // namespace vmm
