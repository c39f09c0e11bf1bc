#include "vmm/hyperv/kvm_reference_clock.h"

#include <time.h>
#include <x86intrin.h>

#include "absl/status/status.h"
#include "base/status_macros.h"

namespace vmm {
namespace {

uint64_t RawNanoseconds() noexcept {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t MultiplyHigh(uint64_t a, uint64_t b) noexcept {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvmReferenceClock>> KvmReferenceClock::Create(const kvm::Vm& vm, const kvm::Vcpu& vcpu) {
  auto clock = std::unique_ptr<KvmReferenceClock>(new KvmReferenceClock());
  ASSIGN_OR_RETURN(const kvm_clock_data now, vm.GetClock());
  clock->raw_offset_ns_ = now.clock - RawNanoseconds();
  const uint64_t khz = vcpu.TscKhz();
  constexpr uint32_t kStable = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_HOST_TSC;
  const auto offset = vcpu.GetTscOffset();
  if ((now.flags & kStable) != kStable || khz == 0 || !offset.ok()) return clock;
  clock->tsc_offset_ = *offset;
  const uint64_t scale =
      static_cast<uint64_t>((static_cast<unsigned __int128>(HvTicks::kPerSecond) << 64) / (khz * 1000));
  const uint64_t guest_tsc = now.host_tsc + *offset;
  clock->parameters_ = {.scale = scale, .offset = now.clock / HvTicks::kNanoseconds + 1 - MultiplyHigh(guest_tsc, scale)};
  return clock;
}

HvTicks KvmReferenceClock::Now() noexcept {
  if (!parameters_) return HvTicks((RawNanoseconds() + raw_offset_ns_) / HvTicks::kNanoseconds);
  // lfence: the reading is not taken before what this thread did until now.
  _mm_lfence();
  return HvTicks(MultiplyHigh(__rdtsc() + tsc_offset_, parameters_->scale) + parameters_->offset);
}

}  // namespace vmm
