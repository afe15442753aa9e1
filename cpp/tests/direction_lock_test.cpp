#include "direction_lock.hpp"

#include <thread>
#include <vector>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

using Turn = DirectionLock::Turn;

constexpr std::uint64_t kMaker = 77;

Status take(DirectionLock& lock, Deadline deadline) { return lock.take(deadline, Interruption()); }

// Takes the lock and leases it, as a call that gives a view does.
void lease(DirectionLock& lock) {
  CHECK(lock.try_take());
  Turn(lock).lease(kMaker);
}

bool can_be_taken(DirectionLock& lock) {
  if (!lock.try_take()) return false;
  lock.give();
  return true;
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
    CHECK_STATUS(take(lock, Deadline::immediate()), Status::taken);
    CHECK_STATUS(take(lock, soon()), Status::taken);
  });
  other.join();
  lock.give();
  CHECK_STATUS(take(lock, Deadline::immediate()), Status::ok);
  lock.give();
}

// Who gives the lock and wants it again at once stands behind those that wait.
void first_come_first_served() {
  constexpr int kWaiting = 4;
  DirectionLock lock;
  CHECK(lock.try_take());
  std::vector<int> order;  // the lock guards it
  std::vector<std::unique_ptr<Sleeper>> waiting;
  for (int i = 0; i < kWaiting; ++i) {
    waiting.push_back(std::make_unique<Sleeper>([&, i] {
      CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
      order.push_back(i);
      lock.give();
    }));
    waiting.back()->await_asleep();
  }
  lock.give();
  CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
  CHECK(order.size() == kWaiting);
  lock.give();
  for (const auto& waiter : waiting) waiter->join();
  for (int i = 0; i < kWaiting; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
}

// One that gave up in the middle of the queue leaves no hole in it.
void a_waiter_that_gives_up_is_passed_over() {
  DirectionLock lock;
  CHECK(lock.try_take());
  Sleeper first([&] { CHECK_STATUS(take(lock, Deadline::after(200 * kMillisecond)), Status::taken); });
  first.await_asleep();
  Sleeper second([&] {
    CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
    lock.give();
  });
  second.await_asleep();
  first.join();
  CHECK(!lock.is_free());
  lock.give();
  second.join();
  CHECK(can_be_taken(lock));
}

void a_thread_that_comes_in_again_is_told() {
  DirectionLock lock;
  CHECK(lock.try_take());
  CHECK_STATUS(take(lock, Deadline::never()), Status::entered);
  CHECK_STATUS(take(lock, Deadline::immediate()), Status::entered);
  lock.close();
  CHECK_STATUS(take(lock, Deadline::never()), Status::closed);
  CHECK(!lock.take_to_close());  // it would wait for itself
  lock.give();
  CHECK(lock.take_to_close());
}

// A signal handler that runs in the middle of a wait for the lock.
DirectionLock* interrupted_lock = nullptr;
std::atomic<bool> tried{false};

bool comes_in_again() {
  CHECK_STATUS(take(*interrupted_lock, Deadline::never()), Status::entered);
  tried.store(true);
  return false;
}

void a_waiter_that_comes_in_again_is_told() {
  DirectionLock lock;
  interrupted_lock = &lock;
  CHECK(lock.try_take());
  Sleeper waiting([&] {
    CHECK_STATUS(lock.take(hang(), Interruption(in_every_thread, comes_in_again)), Status::ok);
    lock.give();
  });
  while (!tried.load()) std::this_thread::yield();
  lock.give();
  waiting.join();
  CHECK(can_be_taken(lock));
}

std::atomic<bool> stop{false};
bool is_stopped() { return stop.load(); }

void stops_when_interrupted() {
  stop.store(false);
  DirectionLock lock;
  CHECK(lock.try_take());
  Sleeper waiting([&] {
    CHECK_STATUS(lock.take(Deadline::never(), Interruption(in_every_thread, is_stopped)),
                 Status::interrupted);
  });
  waiting.await_asleep();
  stop.store(true);
  waiting.join();
  lock.give();
  CHECK(can_be_taken(lock));
}

// Granted while its signal handler ran, an interrupted waiter hands the lock on.
void an_interrupted_waiter_hands_on() {
  const int kRounds = rounds(400);
  for (int round = 0; round < kRounds; ++round) {
    static std::atomic<int> looks;
    looks.store(0);
    DirectionLock lock;
    CHECK(lock.try_take());
    const auto second_look = [] { return looks.fetch_add(1) > 0; };
    Sleeper interrupted([&] {
      const Status status = lock.take(hang(), Interruption(in_every_thread, second_look));
      if (status == Status::ok) lock.give();
    });
    Sleeper other([&] {
      CHECK_STATUS(take(lock, hang()), Status::ok);
      lock.give();
    });
    if (round % 8 == 0) interrupted.await_asleep();
    lock.give();
    other.join();
    interrupted.join();
    CHECK(can_be_taken(lock));
  }
}

void a_lease_holds_it() {
  DirectionLock lock;
  lease(lock);
  CHECK(lock.leaser() == kMaker);
  CHECK(!lock.try_take());
  // The thread with the lease would wait for itself.
  CHECK_STATUS(take(lock, Deadline::never()), Status::held);
  CHECK_STATUS(take(lock, Deadline::immediate()), Status::held);
  std::thread hasty([&] { CHECK_STATUS(take(lock, soon()), Status::leased); });
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
  CHECK(can_be_taken(lock));
}

void a_lease_may_end_on_another_thread() {
  DirectionLock lock;
  lease(lock);
  std::thread other([&] {
    CHECK(lock.end_lease());
    lock.give();
  });
  other.join();
  CHECK(can_be_taken(lock));
}

// The name of a thread that has ended is nobody else's.
void a_lease_of_a_thread_that_has_ended() {
  DirectionLock lock;
  std::thread maker([&] { lease(lock); });
  maker.join();
  std::thread other([&] { CHECK_STATUS(take(lock, soon()), Status::leased); });
  other.join();
  CHECK(lock.end_lease());
  lock.give();
}

// Without a deadline, too; once, and then the wait goes on.
void a_long_lease_is_told_of_once() {
  DirectionLock lock;
  lease(lock);
  std::atomic<bool> told{false};
  Sleeper other([&] {
    const Nanoseconds start = now();
    CHECK_STATUS(take(lock, Deadline::never()), Status::leased);
    CHECK(now() - start >= DirectionLock::kPatience);
    told.store(true);
    told.notify_one();
    CHECK_STATUS(take(lock, Deadline::never()), Status::ok);
    lock.give();
  });
  told.wait(false);
  other.await_asleep();
  CHECK(lock.end_lease());
  lock.give();
  other.join();
}

void closing_turns_everybody_away() {
  DirectionLock lock;
  CHECK(lock.try_take());
  std::vector<std::unique_ptr<Sleeper>> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.push_back(std::make_unique<Sleeper>(
        [&] { CHECK_STATUS(take(lock, Deadline::never()), Status::closed); }));
  }
  for (const auto& waiter : waiting) waiter->await_asleep();
  lock.close();
  for (const auto& waiter : waiting) waiter->join();
  lock.give();
  CHECK(!lock.try_take());
  CHECK_STATUS(take(lock, Deadline::never()), Status::closed);
}

void closing_passes_a_lease() {
  DirectionLock lock;
  lease(lock);
  lock.close();
  CHECK(lock.take_to_close());
  CHECK(!lock.end_lease());
  CHECK(!lock.try_take());
  lock.give();
  CHECK(!lock.end_lease());
  CHECK(!lock.try_take());
}

void closing_waits_for_a_call() {
  for (const bool leases : {false, true}) {
    DirectionLock lock;
    CHECK(lock.try_take());
    std::atomic<bool> inside{true};
    Sleeper closing([&] {
      lock.close();
      CHECK(lock.take_to_close());
      CHECK(!inside.load());
      lock.give();
    });
    closing.await_asleep();
    inside.store(false);
    if (leases) {
      Turn(lock).lease(kMaker);
    } else {
      lock.give();
    }
    closing.join();
  }
}

// Everything at once, until one closes.
void every_way_in_and_out() {
  const int kRounds = rounds(200);
  for (int round = 0; round < kRounds; ++round) {
    DirectionLock lock;
    int inside = 0;  // on purpose no atomic: the lock has to order it
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        for (int turn = 0;; ++turn) {
          const bool quick = (turn + i) % 3 == 0;
          const Status status = take(lock, quick ? Deadline::immediate() : Deadline::never());
          if (status == Status::closed) return;
          if (status == Status::taken || status == Status::leased) continue;
          CHECK_STATUS(status, Status::ok);
          CHECK(++inside == 1);
          CHECK(--inside == 0);
          if (turn % 5 != 0) {
            lock.give();
            continue;
          }
          Turn(lock).lease(kMaker);
          if (!lock.end_lease()) return;  // closed meanwhile
          lock.give();
        }
      });
    }
    if (round % 2 == 0) std::this_thread::yield();
    lock.close();
    CHECK(lock.take_to_close());
    CHECK(++inside == 1);
    CHECK(--inside == 0);
    lock.give();
    for (std::thread& thread : threads) thread.join();
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
        Turn(lock).lease(kMaker);
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
  first_come_first_served();
  a_waiter_that_gives_up_is_passed_over();
  a_thread_that_comes_in_again_is_told();
  a_waiter_that_comes_in_again_is_told();
  stops_when_interrupted();
  an_interrupted_waiter_hands_on();
  a_lease_holds_it();
  a_lease_may_end_on_another_thread();
  a_lease_of_a_thread_that_has_ended();
  a_long_lease_is_told_of_once();
  closing_turns_everybody_away();
  closing_passes_a_lease();
  closing_waits_for_a_call();
  every_way_in_and_out();
  hands_over_quickly();
}
