// Numbers that look random and are the same each time. No better than that.
#ifndef VMM_TESTS_GUESTS_RUNTIME_RANDOM_H_
#define VMM_TESTS_GUESTS_RUNTIME_RANDOM_H_

#include <cstdint>

namespace guest {

class Random final {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e37'79b9'7f4a'7c15);
    z = (z ^ z >> 30) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ z >> 27) * 0x94d0'49bb'1331'11eb;
    return z ^ z >> 31;
  }
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(Next() % limit); }

 private:
  uint64_t state_;
};

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_RANDOM_H_
