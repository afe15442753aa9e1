// What both ends agreed on for one channel.
#pragma once

#include <cstdint>

#include "clock.hpp"

namespace proclink {

struct Limits {
  std::uint64_t max_send = 0;     // the longest message the peer accepts, in bytes
  std::uint64_t max_receive = 0;  // the longest message this end accepts, in bytes
  Nanoseconds spin = 0;           // the longest spin before a sleep; 0 never spins
};

}  // namespace proclink
