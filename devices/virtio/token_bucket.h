// A limit on how fast something may be used: tokens come at a rate, up to a burst, and each use takes some.
//
// Units    tokens are whatever the owner counts; times are nanoseconds of a monotonic clock.
// Threads  confined.
#ifndef VMM_DEVICES_VIRTIO_TOKEN_BUCKET_H_
#define VMM_DEVICES_VIRTIO_TOKEN_BUCKET_H_

#include <algorithm>
#include <cstdint>

namespace vmm {

class TokenBucket final {
 public:
  // `per_second` 0: no limit. Starts full.
  TokenBucket(uint64_t per_second, uint64_t burst) : per_second_(per_second), burst_(static_cast<double>(burst)), tokens_(burst_) {}

  // 0: taken. Else nothing is taken, and there will be enough after so many nanoseconds. A use larger than the burst is let through
  // by a full bucket, and leaves a debt: the rate holds, and nothing waits for ever.
  [[nodiscard]] uint64_t Take(uint64_t amount, uint64_t now_ns) {
    if (per_second_ == 0) return 0;
    if (now_ns > last_ns_) {
      const double rate = static_cast<double>(per_second_) / 1e9;
      if (last_ns_ != 0) tokens_ = std::min(burst_, tokens_ + static_cast<double>(now_ns - last_ns_) * rate);
      last_ns_ = now_ns;
    }
    const double needed = std::min(static_cast<double>(amount), burst_);
    if (tokens_ >= needed) {
      tokens_ -= static_cast<double>(amount);
      return 0;
    }
    return static_cast<uint64_t>((needed - tokens_) * 1e9 / static_cast<double>(per_second_)) + 1;
  }
  // For a use whose size was known only afterwards: taken, as a debt where there is less.
  void Charge(uint64_t amount) {
    if (per_second_ != 0) tokens_ -= static_cast<double>(amount);
  }
  // Back, for a use that did not happen.
  void Return(uint64_t amount) { tokens_ = std::min(burst_, tokens_ + static_cast<double>(amount)); }

 private:
  const uint64_t per_second_;
  const double burst_;
  double tokens_;
  uint64_t last_ns_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_TOKEN_BUCKET_H_
