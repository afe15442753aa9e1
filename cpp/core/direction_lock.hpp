// One user at a time for one direction of a channel, so that a ring keeps its single producer and
// its single consumer however many threads share the link.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "clock.hpp"
#include "status.hpp"

namespace proclink {

// Asks whether the waiting call should stop (a signal handler raised, say). Called without any lock
// of the core, before a thread first sleeps and after a signal woke it.
using Interrupted = bool (*)();

class DirectionLock {
 public:
  bool is_free() const { return state_.load(std::memory_order_seq_cst) == kFree; }

  bool try_take() {
    std::uint32_t free = kFree;
    // Partner is the store in give(). seq_cst, for closing: either whoever takes the lock sees that
    // the channel is closed, or whoever closes sees the lock taken.
    return state_.compare_exchange_strong(free, kTaken, std::memory_order_seq_cst);
  }

  void give() {
    // seq_cst with the load behind it: partner is the increment in wait_for(). Either the waiter
    // finds the lock free or this thread finds the waiter.
    state_.store(kFree, std::memory_order_seq_cst);
    if (waiting_.load(std::memory_order_seq_cst) != 0) [[unlikely]] {
      const std::lock_guard guard(mutex_);
      freed_.notify_all();
    }
  }

  // Waits for the lock. `held` when this very thread has leased it to a view or a loan.
  Status take(Deadline deadline, Interrupted interrupted) {
    return wait_for(deadline, interrupted, [this] { return try_take(); });
  }

  // For closing: also passes a lease, because no thread is inside the channel then.
  void take_to_close() {
    wait_for(Deadline::never(), nullptr, [this] {
      std::uint32_t leased = kLeased;
      return try_take() || state_.compare_exchange_strong(leased, kTaken,
                                                          std::memory_order_seq_cst);
    });
  }

  // The holder goes back to its caller while a view or a loan of the direction stays out.
  void lease() {
    leaser_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    state_.store(kLeased, std::memory_order_seq_cst);
    if (waiting_.load(std::memory_order_seq_cst) != 0) {
      const std::lock_guard guard(mutex_);
      freed_.notify_all();
    }
  }

  // The view or loan is back: the caller holds the lock again. False when the channel was closed.
  bool end_lease() {
    std::uint32_t leased = kLeased;
    return state_.compare_exchange_strong(leased, kTaken, std::memory_order_seq_cst);
  }

 private:
  enum : std::uint32_t { kFree = 0, kTaken = 1, kLeased = 2 };

  template <class Attempt>
  Status wait_for(Deadline deadline, Interrupted interrupted, Attempt attempt) {
    // A condition variable does not return on a signal, so a waiter that may be interrupted looks
    // up ten times a second. The wake itself never depends on that.
    constexpr Nanoseconds kSlice = 100'000'000;
    waiting_.fetch_add(1, std::memory_order_seq_cst);
    Status status = Status::ok;
    {
      std::unique_lock guard(mutex_);
      while (!attempt()) {
        // acquire: partner is the store in lease(), behind that of the thread.
        if (interrupted && state_.load(std::memory_order_acquire) == kLeased &&
            leaser_.load(std::memory_order_relaxed) == std::this_thread::get_id()) {
          status = Status::held;
          break;
        }
        if (deadline.passed()) {
          status = Status::timed_out;
          break;
        }
        freed_.wait_for(guard, std::chrono::nanoseconds(std::min(kSlice, deadline.remaining())));
        if (interrupted) {
          guard.unlock();
          const bool stop = interrupted();
          guard.lock();
          if (stop) {
            status = Status::interrupted;
            break;
          }
        }
      }
    }
    waiting_.fetch_sub(1, std::memory_order_relaxed);
    return status;
  }

  std::atomic<std::uint32_t> state_{kFree};
  std::atomic<std::uint32_t> waiting_{0};
  std::atomic<std::thread::id> leaser_{};
  std::mutex mutex_;
  std::condition_variable freed_;
};

}  // namespace proclink
