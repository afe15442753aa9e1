#include <algorithm>
#include <array>
#include <atomic>
#include <system_error>
#include <thread>

#include "doorbell.hpp"
#include "peer_watch.hpp"
#include "spin.hpp"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace proclink {
namespace {

void run_on([[maybe_unused]] int cpu) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  // Not allowed any more: then it is measured wherever it runs.
  static_cast<void>(pthread_setaffinity_np(pthread_self(), sizeof set, &set));
#endif
}

}  // namespace

Nanoseconds measure_wake(int first_cpu, int second_cpu) {
  constexpr int kRounds = 9;
  constexpr Nanoseconds kFallback = 50'000;
  SystemError error;
  const Doorbell there = Doorbell::create(error);
  const Doorbell back = Doorbell::create(error);
  if (error) return kFallback;
  const PeerWatch nobody(PeerWatch::kNone, PeerWatch::kNone);
  const Deadline enough = Deadline::after(200'000'000);
  std::atomic<bool> done{false};
  std::array<Nanoseconds, kRounds> rounds{};
  // Two threads of our own: the caller's affinity is not ours to change, and two threads on one CPU
  // would measure a switch and not a wake.
  const auto answer = [&] {
    run_on(second_cpu);
    while (!done.load() && nobody.sleep(there, enough) != Woken::timed_out) {
      there.drain();
      back.ring();
    }
  };
  const auto ask = [&] {
    run_on(first_cpu);
    for (Nanoseconds& round : rounds) {
      const Nanoseconds start = now();
      there.ring();
      nobody.sleep(back, enough);
      back.drain();
      round = (now() - start) / 2;
    }
    done.store(true);
    there.ring();
  };
  std::thread echo, caller;
  bool measured = true;
  try {
    echo = std::thread(answer);
    caller = std::thread(ask);
  } catch (const std::system_error&) {  // no thread to be had
    measured = false;
    done.store(true);
    there.ring();
  }
  if (caller.joinable()) caller.join();
  if (echo.joinable()) echo.join();
  if (!measured) return kFallback;
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

}  // namespace proclink
