// Lets who changes protections wait for accesses of the monitor's own that began under the old ones.
//
// A protection is looked up, then bytes are copied. If it is taken away between the two, the copy would still be made after the
// change was said to be done. So look-up and copy are made within a Section, and a change ends with Drain.
//
// Threads  Section: any, waits for a Closed alone. Drain and Closed: any, one at a time by a lock of its own; waits only for sections that
//          began before it, and these copy and nothing else.
// Errors   none.
//
// Two counters that take turns, so that sections which keep coming do not hold up Drain: as in Linux's SRCU. A Closed keeps new ones out
// from the start, so that they do not hold up that either.
#ifndef VMM_MEMORY_ACCESS_GATE_H_
#define VMM_MEMORY_ACCESS_GATE_H_

#include <sched.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "base/mutex.h"

namespace vmm {

class AccessGate final {
 public:
  AccessGate() = default;
  AccessGate(const AccessGate&) = delete;
  AccessGate& operator=(const AccessGate&) = delete;

  class Section final {
   public:
    explicit Section(AccessGate& gate) noexcept : gate_(gate), turn_(gate.Enter()) {}
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;
    ~Section() {
      // release: pairs with Drain's load, so that what was copied here comes before what Drain's caller does next.
      gate_.inside_[turn_].count.fetch_sub(1, std::memory_order_release);
    }

   private:
    AccessGate& gate_;
    const uint32_t turn_;
  };

  // Nothing where there is no gate.
  class MaybeSection final {
   public:
    explicit MaybeSection(AccessGate* gate) noexcept {
      if (gate != nullptr) section_.emplace(*gate);
    }

   private:
    std::optional<Section> section_;
  };

  // While it lives there is no section: those that began before have ended, and others wait. For as long as it takes to copy pages.
  class Closed final {
   public:
    explicit Closed(AccessGate& gate) noexcept : gate_(gate), lock_(gate.closing_) {
      // seq_cst, before the turn: a section that did not see it has counted itself before Drain looks.
      gate.closed_.store(true, std::memory_order_seq_cst);
      gate.Drain();
    }
    Closed(const Closed&) = delete;
    Closed& operator=(const Closed&) = delete;
    // release: pairs with Enter's load, so that what was done here comes before what the next sections do.
    ~Closed() { gate_.closed_.store(false, std::memory_order_release); }

   private:
    AccessGate& gate_;
    const MutexLock lock_;
  };

  // At its return every section that could have looked before it was called has ended; later ones see what was stored before.
  void Drain() noexcept {
    const MutexLock lock(mutex_);
    const uint32_t turn = turn_.load(std::memory_order_relaxed);  // only written here
    turn_.store(turn ^ 1, std::memory_order_seq_cst);
    while (inside_[turn].count.load(std::memory_order_seq_cst) != 0) ::sched_yield();
  }

 private:
  friend class Section;
  uint32_t Enter() noexcept {
    while (true) {
      while (closed_.load(std::memory_order_acquire)) ::sched_yield();
      const uint32_t turn = turn_.load(std::memory_order_seq_cst);
      // seq_cst, count before turn here and turn before count in Drain: either this sees the new turn and goes back, or Drain
      // sees the count and waits. The load is also an acquire of what was stored before Drain.
      inside_[turn].count.fetch_add(1, std::memory_order_seq_cst);
      if (turn_.load(std::memory_order_seq_cst) == turn && !closed_.load(std::memory_order_seq_cst)) return turn;
      inside_[turn].count.fetch_sub(1, std::memory_order_release);
    }
  }

  struct alignas(64) Counter {
    std::atomic<uint32_t> count{0};
  };
  std::array<Counter, 2> inside_;
  alignas(64) std::atomic<uint32_t> turn_{0};
  std::atomic<bool> closed_{false};
  Mutex mutex_;
  Mutex closing_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_ACCESS_GATE_H_
