// What a thread does between the making of a descriptor and its being in its owner's hands, as a
// context manager: a fork waits until no other thread is inside. Nobody else waits. A thread inside
// may be interrupted by a signal handler that waits for others, who may come in meanwhile.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "clock.hpp"
#include "gil.hpp"

namespace proclink::python {

// One for the process. Entering and leaving are one step to a signal handler, and keep the GIL.
class ForkRegion {
 public:
  void enter() {
    ++mine();
    inside_.fetch_add(1, std::memory_order_seq_cst);
  }
  void exit() {
    --mine();
    inside_.fetch_sub(1, std::memory_order_seq_cst);
  }

  // Before a fork. Not for good: one inside may be in a signal handler that waits for this thread. The
  // child then keeps a descriptor.
  void wait() {
    constexpr Nanoseconds kLongest = 1'000'000'000;
    constexpr auto kLook = std::chrono::microseconds(50);
    const Deadline deadline = Deadline::after(kLongest);
    while (inside_.load(std::memory_order_seq_cst) != mine() && !deadline.passed()) {
      const WithoutGil released;
      std::this_thread::sleep_for(kLook);
    }
  }

  // In a forked child, where this thread is the only one.
  void forget_others() { inside_.store(mine(), std::memory_order_seq_cst); }

 private:
  static int& mine() {
    thread_local int count = 0;
    return count;
  }

  std::atomic<int> inside_{0};
};

}  // namespace proclink::python
