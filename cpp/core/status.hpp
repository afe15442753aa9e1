// What a call into the core came to.
#pragma once

#include <cstdint>

namespace proclink {

enum class Status : std::uint8_t {
  ok,
  timed_out,     // the deadline passed; nothing of a message being sent will be delivered
  interrupted,   // the caller's interrupt hook asked to stop
  closed,        // this end was closed
  peer_closed,   // the peer said goodbye and everything it sent was received
  peer_lost,     // the peer vanished between two messages
  truncated,     // the peer vanished in the middle of a message
  corrupt,       // the peer broke the protocol
  too_large,     // longer than the peer accepts
  too_small,     // the caller's buffer is shorter than the message
  held,          // this thread still holds a view or a loan of this direction
  forked,        // used in a forked child
  system_error,  // a system call failed; see the channel's last_error()
};

}  // namespace proclink
