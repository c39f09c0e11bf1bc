// A word that several processors or handlers use at once. The standard's needs more of a library than there is here.
//
// Threads  any. Loads are acquire, stores release, the rest both: nothing here is worth a weaker order.
#ifndef VMM_TESTS_GUESTS_RUNTIME_ATOMIC_H_
#define VMM_TESTS_GUESTS_RUNTIME_ATOMIC_H_

namespace guest {

template <typename T>
class Atomic final {
 public:
  constexpr Atomic() = default;
  constexpr explicit Atomic(T value) : value_(value) {}
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  [[nodiscard]] T Load() const { return __atomic_load_n(&value_, __ATOMIC_ACQUIRE); }
  void Store(T value) { __atomic_store_n(&value_, value, __ATOMIC_RELEASE); }
  T Exchange(T value) { return __atomic_exchange_n(&value_, value, __ATOMIC_ACQ_REL); }
  // What it was before.
  T Add(T value) { return __atomic_fetch_add(&value_, value, __ATOMIC_ACQ_REL); }

 private:
  T value_{};
};

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_ATOMIC_H_
