#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "doorbell.hpp"
#include "peer_watch.hpp"
#include "spin.hpp"

namespace proclink {

Nanoseconds measure_wake() {
  constexpr int kRounds = 9;
  constexpr Nanoseconds kFallback = 30'000;
  SystemError error;
  const Doorbell there = Doorbell::create(error);
  const Doorbell back = Doorbell::create(error);
  if (error) return kFallback;
  const PeerWatch nobody(PeerWatch::kNone, PeerWatch::kNone);
  const Deadline enough = Deadline::after(200'000'000);
  std::atomic<bool> done{false};
  std::thread echo([&] {
    while (!done.load() && nobody.sleep(there, enough) != Woken::timed_out) {
      there.drain();
      back.ring();
    }
  });
  std::array<Nanoseconds, kRounds> rounds{};
  for (Nanoseconds& round : rounds) {
    const Nanoseconds start = now();
    there.ring();
    nobody.sleep(back, enough);
    back.drain();
    round = (now() - start) / 2;
  }
  done.store(true);
  there.ring();
  echo.join();
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

}  // namespace proclink
