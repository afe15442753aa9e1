// Lets threads wait for something to change that they look at without a lock.
//
//   waiter: seen = count()  ->  look  ->  wait(seen)  ->  look again
//   other:  change          ->  advance()
//
// Whatever the other changes after the waiter's look makes its wait end, and the waiter holds nothing
// while it sleeps: a signal handler may raise, close or change whatever it likes meanwhile. (The
// event count of Reed and Kanodia, 1979.)
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "clock.hpp"
#include "interruption.hpp"
#include "status.hpp"

namespace proclink {

class EventCount {
 public:
  std::uint64_t count() const {
    const std::lock_guard guard(mutex_);
    return count_;
  }

  void advance() {
    const std::lock_guard guard(mutex_);
    ++count_;
    advanced_.notify_all();
  }

  // ok when the count is not `seen` any more; timed_out; interrupted.
  Status wait(std::uint64_t seen, Deadline deadline, Interruption interruption) {
    std::unique_lock guard(mutex_);
    while (count_ == seen) {
      if (deadline.passed()) return Status::timed_out;
      const Deadline next = interruption.next_look(deadline);
      if (next.is_never()) {
        advanced_.wait(guard);
      } else {
        advanced_.wait_for(guard, std::chrono::nanoseconds(next.remaining()));
      }
      if (count_ != seen || !interruption.may_come()) continue;
      guard.unlock();
      const bool stop = interruption.came();
      guard.lock();
      if (stop) return Status::interrupted;
    }
    return Status::ok;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable advanced_;
  std::uint64_t count_ = 0;
};

}  // namespace proclink
