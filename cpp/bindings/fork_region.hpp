// What a thread does between the making of a descriptor and its being in its owner's hands, as a
// context manager: a fork waits until no other thread is inside, and keeps others out until it is done.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "clock.hpp"
#include "gil.hpp"

namespace proclink::python {

// There is one. Entering and leaving are one step to a signal handler. Nobody waits for good: a thread
// inside may be in a signal handler that waits for the one that forks, and hooks that run before the
// fork may wait for a lock that one who wants to come in holds.
class ForkRegion {
 public:
  static ForkRegion& one() {
    static ForkRegion region;
    return region;
  }

  void enter() {
    if (mine().inside == 0) come_in();
    ++mine().inside;
  }
  void exit() {
    if (--mine().inside == 0) inside_.fetch_sub(1, std::memory_order_seq_cst);
  }

  // Before a fork, of the thread that forks. When the time is up, the child may keep a descriptor.
  void before_fork() {
    until_.store(now() + kLongest, std::memory_order_relaxed);
    forks_.fetch_add(1, std::memory_order_seq_cst);  // partner: come_in()
    ++mine().forks;
    const int own = mine().inside > 0 ? 1 : 0;
    wait_while([&] { return inside_.load(std::memory_order_seq_cst) > own; });
  }
  // The fork is over, or did not happen. Again does nothing.
  void after_fork() {
    if (const int forks = std::exchange(mine().forks, 0))
      forks_.fetch_sub(forks, std::memory_order_seq_cst);
  }

 private:
  static constexpr Nanoseconds kLongest = 1'000'000'000;

  struct Mine {
    int inside = 0;
    int forks = 0;
  };
  static Mine& mine() {
    thread_local Mine one;
    return one;
  }

  // Not in hooks of Python's: those that run earlier may want to come in.
  ForkRegion() {
    ::pthread_atfork(
        nullptr, [] { one().after_fork(); }, [] { one().begin_in_child(); });
  }

  // This thread is the only one there.
  void begin_in_child() {
    forks_.store(0, std::memory_order_seq_cst);
    inside_.store(mine().inside > 0 ? 1 : 0, std::memory_order_seq_cst);
    mine().forks = 0;
  }

  void come_in() {
    const auto fork_is_near = [&] {
      return forks_.load(std::memory_order_seq_cst) > 0 && mine().forks == 0;
    };
    for (;;) {
      if (fork_is_near()) wait_while(fork_is_near);
      inside_.fetch_add(1, std::memory_order_seq_cst);  // partner: before_fork()
      if (!fork_is_near() || now() >= until_.load(std::memory_order_relaxed)) return;
      inside_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  template <class Condition>
  void wait_while(Condition condition) {
    constexpr auto kLook = std::chrono::microseconds(50);
    while (condition() && now() < until_.load(std::memory_order_relaxed)) {
      const WithoutGil released;
      std::this_thread::sleep_for(kLook);
    }
  }

  std::atomic<int> inside_{0};  // threads
  std::atomic<int> forks_{0};   // forks that are near
  std::atomic<Nanoseconds> until_{0};
};

}  // namespace proclink::python
