#include "spin.hpp"

#include <climits>

#include "ends.hpp"
#include "poll_posix.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr Nanoseconds kBudget = 1000;

void without_a_budget_never_spins() {
  AdaptiveSpin spin(0);
  CHECK(!spin.enabled());
  CHECK(spin.budget() == 0);
  for (int i = 0; i < 100; ++i) {
    spin.ended_in_spin();
    CHECK(spin.budget() == 0);
  }
}

void begins_with_spinning() {
  const AdaptiveSpin spin(kBudget);
  CHECK(spin.enabled());
  CHECK(spin.budget() == kBudget);
}

int long_sleeps_until_it_stops(AdaptiveSpin& spin) {
  int count = 0;
  while (spin.budget() > 0) {
    CHECK(++count < 1000);
    spin.ended_in_sleep(kSecond);
  }
  return count;
}

void stops_after_long_sleeps() {
  AdaptiveSpin spin(kBudget);
  CHECK(long_sleeps_until_it_stops(spin) == 4);
  CHECK(spin.enabled());
  // However long it was idle, one quick wait is enough to start again.
  for (int i = 0; i < 100; ++i) spin.ended_in_sleep(kSecond);
  CHECK(spin.budget() == 0);
  spin.ended_in_sleep(kBudget);
  CHECK(spin.budget() == kBudget);
  CHECK(long_sleeps_until_it_stops(spin) == 2);
  spin.ended_in_spin();
  CHECK(spin.budget() == kBudget);
  CHECK(long_sleeps_until_it_stops(spin) == 1);
}

void however_busy_soon_stops() {
  AdaptiveSpin spinning(kBudget);
  for (int i = 0; i < 100; ++i) spinning.ended_in_spin();
  CHECK(long_sleeps_until_it_stops(spinning) == 8);
  AdaptiveSpin sleeping(kBudget);
  for (int i = 0; i < 100; ++i) sleeping.ended_in_sleep(0);
  CHECK(long_sleeps_until_it_stops(sleeping) == 8);
}

void a_sleep_of_two_budgets_is_the_longest_short_one() {
  AdaptiveSpin spin(kBudget);
  long_sleeps_until_it_stops(spin);
  spin.ended_in_sleep(2 * kBudget + 1);
  CHECK(spin.budget() == 0);
  spin.ended_in_sleep(2 * kBudget);
  CHECK(spin.budget() == kBudget);
}

void looks_until_ready() {
  int looks = 0;
  const auto at = [&](int look) {
    looks = 0;
    return [&looks, look] { return ++looks == look; };
  };
  CHECK(AdaptiveSpin::until(kSecond, at(1)));
  CHECK(looks == 1);
  CHECK(AdaptiveSpin::until(kSecond, at(1000)));
  CHECK(looks == 1000);
  CHECK(!AdaptiveSpin::until(kMillisecond, at(-1)));
  CHECK(looks > 16);
  // The last look comes after the clock was read: a stop between the two hides nothing.
  CHECK(AdaptiveSpin::until(0, at(17)));
  CHECK(!AdaptiveSpin::until(0, at(18)));
  CHECK(looks == 17);
}

void measures_a_wake() {
  const Nanoseconds wake = measure_wake(0, 1);
  CHECK(wake > 0);
  std::printf("a wake takes %lld ns\n", static_cast<long long>(wake));
}

void knows_deadlines() {
  CHECK(Deadline::never().is_never());
  CHECK(!Deadline::never().passed());
  CHECK(Deadline::immediate().passed());
  CHECK(Deadline::immediate().remaining() == 0);
  CHECK(Deadline::after(0).is_immediate());
  CHECK(Deadline::after(-1).is_immediate());
  constexpr Nanoseconds kMost = std::numeric_limits<Nanoseconds>::max();
  CHECK(Deadline::after(kMost).is_never());
  CHECK(Deadline::after(kMost - 1).is_never());
  const Deadline later = Deadline::after(1000 * kSecond);
  CHECK(!later.passed() && !later.is_never() && !later.is_immediate());
  CHECK(later.remaining() > 900 * kSecond && later.remaining() <= 1000 * kSecond);
  const Deadline short_one = Deadline::after(1);
  while (!short_one.passed()) {
  }
  CHECK(short_one.remaining() == 0);

  CHECK(poll_timeout(Deadline::never()) == -1);
  CHECK(poll_timeout(Deadline::immediate()) == 0);
  CHECK(poll_timeout(short_one) == 0);
  CHECK(poll_timeout(Deadline::after(kMost / 2)) == INT_MAX);
  CHECK(poll_timeout(later) > 900'000 && poll_timeout(later) <= 1'000'000);
}

}  // namespace

int main() {
  without_a_budget_never_spins();
  begins_with_spinning();
  stops_after_long_sleeps();
  however_busy_soon_stops();
  a_sleep_of_two_budgets_is_the_longest_short_one();
  looks_until_ready();
  measures_a_wake();
  knows_deadlines();
}
