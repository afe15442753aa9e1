#include "event_count.hpp"

#include <atomic>
#include <thread>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

void what_came_before_the_wait_ends_it() {
  EventCount events;
  const std::uint64_t seen = events.count();
  CHECK_STATUS(events.wait(seen, Deadline::immediate(), Interruption()), Status::timed_out);
  CHECK_STATUS(events.wait(seen, soon(), Interruption()), Status::timed_out);
  events.advance();
  CHECK_STATUS(events.wait(seen, Deadline::never(), Interruption()), Status::ok);
}

// A wake that got lost would hang.
void every_change_is_seen() {
  EventCount there, back;
  const int kRounds = rounds(40'000);
  std::atomic<int> ball{0};
  const auto play = [&](EventCount& own, EventCount& other, int player) {
    for (int round = 0; round < kRounds; ++round) {
      for (;;) {
        const std::uint64_t seen = own.count();
        if (ball.load(std::memory_order_relaxed) == player) break;
        CHECK_STATUS(own.wait(seen, hang(), Interruption()), Status::ok);
      }
      ball.store(1 - player, std::memory_order_relaxed);
      other.advance();
    }
  };
  std::thread other([&] { play(back, there, 1); });
  play(there, back, 0);
  other.join();
}

std::atomic<bool> stop{false};
bool is_stopped() { return stop.load(); }

void stops_when_interrupted() {
  EventCount events;
  const std::uint64_t seen = events.count();
  Sleeper waiting([&] {
    CHECK_STATUS(
        events.wait(seen, Deadline::never(), Interruption(in_every_thread, is_stopped)),
        Status::interrupted);
  });
  waiting.await_asleep();
  stop.store(true);
  waiting.join();
}

}  // namespace

int main() {
  what_came_before_the_wait_ends_it();
  every_change_is_seen();
  stops_when_interrupted();
}
