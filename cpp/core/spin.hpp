// Adaptive bounded spinning: look for a short while before paying for a sleep and a wake.
//
// A sleep and a wake cost some 30 us on a virtual machine, a look at a cache line some 0.1 us. So a
// wait first looks for up to one wake's worth of time, but only while recent waits ended within
// that budget: an idle end soon stops spinning, and one whose messages come quickly starts again.
#pragma once

#include <algorithm>
#include <atomic>

#include "clock.hpp"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <intrin.h>
#endif

namespace proclink {

inline void cpu_relax() {
#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
  _mm_pause();
#elif defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  asm volatile("isb" ::: "memory");
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

// The median time from ringing the doorbell of a thread that sleeps on `second_cpu` to that thread
// running, rung from `first_cpu`. Where threads cannot be pinned, wherever they happen to run. Takes
// about a millisecond.
Nanoseconds measure_wake(int first_cpu, int second_cpu);

class AdaptiveSpin {
 public:
  // budget: the longest spin in nanoseconds; 0 never spins.
  explicit AdaptiveSpin(Nanoseconds budget) : budget_(budget) {}

  // How long the next wait may spin; 0 when recent waits took longer than the budget.
  Nanoseconds budget() const { return score_ > 0 ? budget_ : 0; }
  bool enabled() const { return budget_ > 0; }

  void ended_in_spin() { score_ = std::min(score_ + 1, kMaximum); }

  // waited: from the start of the wait to the wake. Two ends that both sleep wait for two wakes
  // each; they have to count that as short, or they would never find back to spinning.
  void ended_in_sleep(Nanoseconds waited) {
    if (waited <= 2 * budget_) {
      score_ = std::min(score_ + 2, kMaximum);
    } else {
      score_ = std::max(score_ - 1, 0);
    }
  }

  // Calls ready() until it is true or the budget is spent, with `pauses` pauses between the looks:
  // each look takes the line from the core that writes it.
  template <class Ready>
  static bool until(Nanoseconds budget, Ready&& ready, int pauses = 1) {
    const Nanoseconds end = now() + budget;
    do {
      // The clock costs as much as some twenty looks at a line in the cache.
      for (int look = 0; look < 16; ++look) {
        if (ready()) return true;
        for (int pause = 0; pause < pauses; ++pause) cpu_relax();
      }
    } while (now() < end);
    return ready();
  }

 private:
  static constexpr int kMaximum = 8;
  Nanoseconds budget_;
  int score_ = kMaximum / 2;
};

}  // namespace proclink
