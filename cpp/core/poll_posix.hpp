// Deadlines as poll() takes them.
#pragma once

#include <algorithm>
#include <climits>

#include "clock.hpp"

namespace proclink {

// Milliseconds, rounded up so that a wait is never cut short; -1 for no deadline.
inline int poll_timeout(Deadline deadline) {
  if (deadline.is_never()) return -1;
  constexpr Nanoseconds kMillisecond = 1'000'000;
  const Nanoseconds left = deadline.remaining();
  const Nanoseconds milliseconds = left / kMillisecond + (left % kMillisecond != 0);
  return static_cast<int>(std::min<Nanoseconds>(milliseconds, INT_MAX));
}

}  // namespace proclink
