// What may end a wait from outside the channel: a signal handler that raises, say.
#pragma once

#include "clock.hpp"

namespace proclink {

class Interruption {
 public:
  using Ask = bool (*)();

  // Nothing interrupts.
  constexpr Interruption() = default;
  // `comes_here`: whether it can come to the calling thread at all. `stops`: whether the waiting call
  // should stop. It may run anything, another call of the same channel too, so it is called without
  // any mutex of the core, and only where `comes_here` is true.
  constexpr Interruption(Ask comes_here, Ask stops) : comes_here_(comes_here), stops_(stops) {}

  bool may_come() const { return comes_here_ != nullptr && comes_here_(); }
  bool came() const { return may_come() && stops_(); }

  // When a sleep towards the deadline has to end for a look. A signal that comes between a thread's
  // last look and its sleep, or that the system gives to another thread, ends no sleep.
  Deadline next_look(Deadline deadline) const {
    constexpr Nanoseconds kSlice = 100'000'000;
    if (deadline.is_immediate() || !may_come() || deadline.remaining() <= kSlice) return deadline;
    return Deadline::after(kSlice);
  }

 private:
  Ask comes_here_ = nullptr;
  Ask stops_ = nullptr;
};

}  // namespace proclink
