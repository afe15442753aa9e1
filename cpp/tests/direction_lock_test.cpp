#include "direction_lock.hpp"

#include <thread>
#include <vector>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

Status take(DirectionLock& lock, Deadline deadline) {
  return lock.take(deadline, never_interrupted);
}

void lets_one_in_at_a_time() {
  DirectionLock lock;
  constexpr int kThreads = 4;
  const int kRounds = rounds(20'000);
  int inside = 0;  // on purpose no atomic: the lock has to order it
  long entered = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < kRounds; ++round) {
        if (i % 2 == 0 || !lock.try_take()) CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
        CHECK(++inside == 1);
        ++entered;
        if (round % 64 == 0) std::this_thread::yield();
        CHECK(--inside == 0);
        lock.give();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(entered == long{kThreads} * kRounds);
  CHECK(lock.try_take());
}

void gives_up_at_the_deadline() {
  DirectionLock lock;
  CHECK(lock.try_take());
  CHECK(!lock.try_take());
  std::thread other([&] {
    CHECK_STATUS(take(lock, Deadline::immediate()), Status::timed_out);
    CHECK_STATUS(take(lock, soon()), Status::timed_out);
  });
  other.join();
  lock.give();
  CHECK_STATUS(take(lock, Deadline::immediate()), Status::ok);
}

void wakes_those_that_wait() {
  DirectionLock lock;
  CHECK(lock.try_take());
  std::vector<std::unique_ptr<Sleeper>> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.push_back(std::make_unique<Sleeper>([&] {
      CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
      lock.give();
    }));
  }
  for (const auto& waiter : waiting) waiter->await_asleep();
  lock.give();
  for (const auto& waiter : waiting) waiter->join();
  CHECK(lock.try_take());
}

void a_lease_holds_it() {
  DirectionLock lock;
  CHECK(lock.try_take());
  lock.lease();
  CHECK(!lock.try_take());
  // The thread with the lease would wait for itself.
  CHECK_STATUS(take(lock, Deadline::never()), Status::held);
  CHECK_STATUS(take(lock, Deadline::immediate()), Status::held);
  std::thread hasty([&] { CHECK_STATUS(take(lock, soon()), Status::timed_out); });
  hasty.join();
  Sleeper other([&] {
    CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
    lock.give();
  });
  other.await_asleep();
  CHECK(lock.end_lease());
  CHECK(!lock.end_lease());
  CHECK(!lock.try_take());
  lock.give();
  other.join();
  CHECK(lock.try_take());
}

void a_lease_may_end_on_another_thread() {
  DirectionLock lock;
  CHECK(lock.try_take());
  lock.lease();
  std::thread other([&] {
    CHECK(lock.end_lease());
    lock.give();
  });
  CHECK(take(lock, Deadline::never()) != Status::timed_out);  // held, or free again by now
  other.join();
}

void only_the_last_lease_counts() {
  DirectionLock lock;
  CHECK(lock.try_take());
  lock.lease();
  CHECK(lock.end_lease());
  lock.give();
  std::thread other([&] {
    CHECK(lock.try_take());
    lock.lease();
  });
  other.join();
  CHECK_STATUS(take(lock, soon()), Status::timed_out);
  CHECK(lock.end_lease());
}

void stops_when_interrupted() {
  static std::atomic<bool> stop;
  stop.store(false);
  DirectionLock lock;
  CHECK(lock.try_take());
  Sleeper waiting([&] {
    CHECK_STATUS(lock.take(Deadline::never(), [] { return stop.load(); }), Status::interrupted);
  });
  waiting.await_asleep();
  stop.store(true);
  waiting.join();
  lock.give();
  CHECK(lock.try_take());
}

void closing_passes_a_lease() {
  DirectionLock lock;
  CHECK(lock.try_take());
  lock.lease();
  lock.take_to_close();
  CHECK(!lock.end_lease());
  CHECK(!lock.try_take());
  lock.give();
  CHECK(!lock.end_lease());
  CHECK(lock.try_take());
}

void closing_waits_for_a_call() {
  DirectionLock lock;
  for (const bool leases : {false, true}) {
    CHECK(lock.try_take());
    std::atomic<bool> inside{true};
    Sleeper closing([&] {
      lock.take_to_close();
      CHECK(!inside.load());
    });
    closing.await_asleep();
    inside.store(false);
    if (leases) {
      lock.lease();
    } else {
      lock.give();
    }
    closing.join();
    lock.give();
  }
}

// A wake that got lost would cost a tenth of a second each time, and the test its time limit.
void hands_over_quickly() {
  DirectionLock lock;
  const int kRounds = rounds(40'000);
  std::atomic<int> turn{0};
  const auto play = [&](int player) {
    for (int round = 0; round < kRounds;) {
      CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
      const bool mine = turn.load(std::memory_order_relaxed) == player;
      if (mine) {
        turn.store(1 - player, std::memory_order_relaxed);
        ++round;
      }
      if (round % 3 == 0) {
        lock.lease();
        CHECK(lock.end_lease());
      }
      lock.give();
      if (!mine) std::this_thread::yield();
    }
  };
  std::thread other([&] { play(1); });
  play(0);
  other.join();
}

}  // namespace

int main() {
  lets_one_in_at_a_time();
  gives_up_at_the_deadline();
  wakes_those_that_wait();
  a_lease_holds_it();
  a_lease_may_end_on_another_thread();
  only_the_last_lease_counts();
  stops_when_interrupted();
  closing_passes_a_lease();
  closing_waits_for_a_call();
  hands_over_quickly();
}
