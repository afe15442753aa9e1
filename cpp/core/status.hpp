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
  entered,       // this thread is inside this direction already, in a call that was interrupted
  taken,         // the deadline passed while another thread used this direction
  leased,        // a view or a loan of another thread is in the way, at the deadline or for long
};

}  // namespace proclink
