// One user at a time for one direction of a channel, so that a ring keeps its single producer and
// its single consumer however many threads share the link.
//
// First come, first served: whoever gives the lock while others wait hands it to the one that waits
// longest. The lock knows its holder, so that a thread that comes in again (in a signal handler, in
// a finalizer) is told so instead of waiting for itself. A forked child's copy is closed.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>

#include "clock.hpp"
#include "condition.hpp"
#include "interruption.hpp"
#include "origin.hpp"
#include "status.hpp"

namespace proclink {

// Names the calling thread, and no other one before or after it.
inline std::uint64_t this_thread() {
  static std::atomic<std::uint64_t> last{0};
#if defined(__GLIBC__)
  // At a fixed place from the thread pointer: the general way is a call, twice a message.
  [[gnu::tls_model("initial-exec")]]
#endif
  static thread_local std::uint64_t name = 0;
  if (name == 0) [[unlikely]]
    name = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return name;
}

class DirectionLock {
 public:
  // After this long behind a view or a loan, a waiter tells (Status::leased), once a lease.
  static constexpr Nanoseconds kPatience = 5'000'000'000;

  // Holds the lock until the end of the scope, whatever ends it.
  class Turn {
   public:
    // The caller has taken it.
    explicit Turn(DirectionLock& taken) : lock_(&taken) {}
    Turn(Turn&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() { give(); }
    void give() {
      if (DirectionLock* const lock = std::exchange(lock_, nullptr)) [[likely]]
        lock->give();
    }
    // A view or a loan holds it from here on; `maker` is for leaser().
    void lease(std::uint64_t maker) {
      std::exchange(lock_, nullptr)->lease(maker);
    }

   private:
    DirectionLock* lock_;
  };

  // Takes the lock if it is free and nobody waits for it. Partner of the acquire: the release in
  // give().
  bool try_take() {
    std::uint64_t free = 0;
    return word_.compare_exchange_strong(free, owned_by(this_thread()), std::memory_order_acquire,
                                         std::memory_order_relaxed);
  }

  // Waits for the lock, behind those that came before. What it may say instead of ok:
  //   entered    this very thread holds it, or waits for it, in a call that this one interrupted
  //   held       this very thread has leased it to a view or a loan
  //   taken      another thread held it until the deadline
  //   leased     a view or a loan had it until the deadline, or has had it for kPatience already
  //   closed, interrupted
  Status take(Deadline deadline, Interruption interruption) {
    if (try_take()) return Status::ok;
    if (!origin_.is_here()) return Status::closed;
    std::unique_lock guard(mutex_);
    Waiter self{this_thread()};
    Status status = may_wait(self, deadline);
    if (status == Status::timed_out) {
      queue(self);
      status = wait(self, guard, deadline, interruption);
    }
    return status;
  }

  void give() {
    std::uint64_t mine = owned_by(this_thread());
    // release: partner is whoever takes the lock next.
    if (word_.compare_exchange_strong(mine, 0, std::memory_order_release,
                                      std::memory_order_relaxed)) [[likely]]
      return;
    if (!origin_.is_here()) return;
    const std::lock_guard guard(mutex_);
    hand_on();
  }

  // Nobody gets in from here on but through take_to_close(), and who waits is told.
  void close() {
    if (!origin_.is_here()) return abandon();
    const std::lock_guard guard(mutex_);
    word_.fetch_or(kClosed, std::memory_order_acq_rel);
    wake_all();
  }
  // The same for a forked child.
  void abandon() { word_.fetch_or(kClosed, std::memory_order_relaxed); }

  // After close(): waits until no thread is inside, and takes the lock; also from a lease. False
  // when this very thread is inside, in a call that this one interrupted, and at the deadline.
  bool take_to_close(Deadline deadline = Deadline::never()) {
    if (!origin_.is_here()) return false;
    std::unique_lock guard(mutex_);
    for (;;) {
      const std::uint64_t seen = word_.load(std::memory_order_acquire);
      if (owner(seen) == 0 || (seen & kLeased) != 0) break;
      if (owner(seen) == this_thread() || deadline.passed()) return false;
      closer_.wait(guard, deadline);
    }
    word_.store(owned_by(this_thread()) | kClosed, std::memory_order_relaxed);
    return true;
  }

  // The view or loan is back: the caller holds the lock again. False when closing took it.
  bool end_lease() {
    if (!origin_.is_here()) return false;
    const std::lock_guard guard(mutex_);
    const std::uint64_t seen = word_.load(std::memory_order_relaxed);
    if ((seen & kLeased) == 0) return false;
    // With kLeased in it, only the holder of the mutex changes the word.
    word_.store(owned_by(this_thread()) | (seen & (kWaitedFor | kClosed)),
                std::memory_order_relaxed);
    return true;
  }

  // Whether the calling thread is inside.
  bool is_mine() const {
    const std::uint64_t seen = word_.load(std::memory_order_relaxed);
    return owner(seen) == this_thread() && (seen & kLeased) == 0;
  }
  bool is_free() const { return owner(word_.load(std::memory_order_acquire)) == 0; }
  // Whoever made the last view or loan, as told to Turn::lease().
  std::uint64_t leaser() const { return leaser_.load(std::memory_order_relaxed); }

 private:
  // The word: the owner's name above three flags. Without a flag it changes by compare and exchange
  // (try_take() and give()); those two fail where a flag is set, and then only the holder of the
  // mutex changes it.
  static constexpr std::uint64_t kLeased = 1;     // to a view or loan of the owner's
  static constexpr std::uint64_t kWaitedFor = 2;  // the queue is not empty
  static constexpr std::uint64_t kClosed = 4;
  static constexpr int kFlags = 3;
  static constexpr std::uint64_t owned_by(std::uint64_t thread) { return thread << kFlags; }
  static constexpr std::uint64_t owner(std::uint64_t word) { return word >> kFlags; }

  struct Waiter {
    std::uint64_t thread;
    bool granted = false;
    Waiter* next = nullptr;
    Condition woken = {};
  };

  // timed_out: the caller queues, and kWaitedFor is set already. ok: it has the lock. With the mutex.
  Status may_wait(const Waiter& self, Deadline deadline) {
    for (;;) {
      std::uint64_t seen = word_.load(std::memory_order_acquire);
      if ((seen & kClosed) != 0) return Status::closed;
      if (seen == 0) {
        if (try_take()) return Status::ok;
        continue;
      }
      if (owner(seen) == self.thread)
        return (seen & kLeased) != 0 ? Status::held : Status::entered;
      if (is_queued(self.thread)) return Status::entered;
      if (deadline.is_immediate()) return in_the_way(seen);
      if (word_.compare_exchange_weak(seen, seen | kWaitedFor, std::memory_order_acq_rel))
        return Status::timed_out;
    }
  }

  Status wait(Waiter& self, std::unique_lock<std::mutex>& guard, Deadline deadline,
              Interruption interruption) {
    Nanoseconds since_lease = 0;
    for (;;) {
      const std::uint64_t seen = word_.load(std::memory_order_acquire);
      if ((seen & kClosed) != 0) return leave(self, Status::closed);
      if (self.granted) return Status::ok;
      if (deadline.passed()) return leave(self, in_the_way(seen));
      Deadline next = interruption.next_look(deadline);
      if ((seen & kLeased) != 0 && !told_) {
        if (since_lease == 0) since_lease = now();
        const Nanoseconds left = since_lease + kPatience - now();
        if (left <= 0) {
          told_ = true;
          return leave(self, Status::leased);
        }
        if (next.remaining() > left) next = Deadline::after(left);
      } else {
        since_lease = 0;
      }
      self.woken.wait(guard, next);
      if (self.granted || !interruption.may_come()) continue;
      guard.unlock();
      const bool stop = interruption.came();
      if (!origin_.is_here()) return stop ? Status::interrupted : Status::closed;
      guard.lock();
      if (stop) return leave(self, Status::interrupted);
    }
  }

  static Status in_the_way(std::uint64_t word) {
    return (word & kLeased) != 0 ? Status::leased : Status::taken;
  }

  void queue(Waiter& self) {
    Waiter** last = &first_;
    while (*last != nullptr) last = &(*last)->next;
    *last = &self;
  }

  // Ends a wait without the lock; who was granted it meanwhile hands it on. With the mutex.
  Status leave(Waiter& self, Status status) {
    if (self.granted) {
      hand_on();
      return status;
    }
    Waiter** place = &first_;
    while (*place != &self) place = &(*place)->next;
    *place = self.next;
    // With kWaitedFor in it, only the holder of the mutex changes the word.
    if (first_ == nullptr) word_.fetch_and(~kWaitedFor, std::memory_order_relaxed);
    return status;
  }

  bool is_queued(std::uint64_t thread) const {
    const Waiter* waiter = first_;
    while (waiter != nullptr && waiter->thread != thread) waiter = waiter->next;
    return waiter != nullptr;
  }

  // The holder lets go. With the mutex, under which a waiter on another thread's stack stays there.
  void hand_on() {
    const std::uint64_t seen = word_.load(std::memory_order_relaxed);
    if ((seen & kClosed) != 0) {
      word_.store(seen & (kClosed | kWaitedFor), std::memory_order_release);
      closer_.notify_all();
      return;
    }
    Waiter* const next = first_;
    if (next == nullptr) {
      word_.store(0, std::memory_order_release);
      return;
    }
    first_ = next->next;
    next->granted = true;
    word_.store(owned_by(next->thread) | (first_ != nullptr ? kWaitedFor : 0),
                std::memory_order_release);
    next->woken.notify_one();
  }

  void lease(std::uint64_t maker) {
    if (!origin_.is_here()) return;
    const std::lock_guard guard(mutex_);
    leaser_.store(maker, std::memory_order_relaxed);
    told_ = false;
    word_.fetch_or(kLeased, std::memory_order_acq_rel);
    wake_all();
  }

  void wake_all() {
    for (Waiter* waiter = first_; waiter != nullptr; waiter = waiter->next)
      waiter->woken.notify_one();
    closer_.notify_all();
  }

  const Origin origin_;
  std::atomic<std::uint64_t> word_{0};
  std::atomic<std::uint64_t> leaser_{0};
  std::mutex mutex_;
  Waiter* first_ = nullptr;         // the longest waiting
  bool told_ = false;               // a waiter told of the present lease
  Condition closer_;  // whoever closes
};

}  // namespace proclink
