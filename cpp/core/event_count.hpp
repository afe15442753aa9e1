// Lets threads wait for something to change that they look at without a lock.
//
//   waiter: seen = count()  ->  look  ->  wait(seen)  ->  look again
//   other:  change          ->  advance()
//
// Whatever the other changes after the waiter's look makes its wait end, and the waiter holds nothing
// while it sleeps: a signal handler may raise, close or change whatever it likes meanwhile. (The
// event count of Reed and Kanodia, 1979.) It may even fork: the child's copy never waits, so what the
// waiter looks at has to tell it that this is the child.
#pragma once

#include <cstdint>
#include <mutex>

#include "clock.hpp"
#include "condition.hpp"
#include "interruption.hpp"
#include "origin.hpp"
#include "status.hpp"

namespace proclink {

class EventCount {
 public:
  std::uint64_t count() const {
    if (!origin_.is_here()) return 0;
    const std::lock_guard guard(mutex_);
    return count_;
  }

  void advance() {
    if (!origin_.is_here()) return;
    const std::lock_guard guard(mutex_);
    ++count_;
    advanced_.notify_all();
  }

  // ok when the count is not `seen` any more; timed_out; interrupted.
  Status wait(std::uint64_t seen, Deadline deadline, Interruption interruption) {
    if (!origin_.is_here()) return Status::ok;
    std::unique_lock guard(mutex_);
    while (count_ == seen) {
      if (deadline.passed()) return Status::timed_out;
      advanced_.wait(guard, interruption.next_look(deadline));
      if (count_ != seen || !interruption.may_come()) continue;
      guard.unlock();
      const bool stop = interruption.came();
      if (stop) return Status::interrupted;
      if (!origin_.is_here()) return Status::ok;
      guard.lock();
    }
    return Status::ok;
  }

 private:
  const Origin origin_;
  mutable std::mutex mutex_;
  Condition advanced_;
  std::uint64_t count_ = 0;
};

}  // namespace proclink
