// A condition variable, whose copy in a forked child ends without a word: the end of one waits for the
// threads that wait at it, and those are not there.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>

#include "clock.hpp"
#include "origin.hpp"

namespace proclink {

class Condition {
 public:
  Condition() { new (&condition_) std::condition_variable; }
  Condition(const Condition&) = delete;
  Condition& operator=(const Condition&) = delete;
  ~Condition() {
    if (origin_.is_here()) condition_.~condition_variable();
  }

  // Until it is notified, the deadline, or for no reason.
  void wait(std::unique_lock<std::mutex>& guard, Deadline deadline) {
    if (deadline.is_never()) {
      condition_.wait(guard);
    } else {
      condition_.wait_for(guard, std::chrono::nanoseconds(deadline.remaining()));
    }
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  const Origin origin_;
  union {
    std::condition_variable condition_;
  };
};

}  // namespace proclink
