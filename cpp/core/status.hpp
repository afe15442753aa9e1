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
  no_resources,  // the system has no memory or buffers; see the channel's last_error()
  too_large,     // longer than the peer accepts
  too_small,     // the caller's buffer is shorter than the message
  held,          // this thread still holds a view or a loan of this direction
  entered,       // this thread is inside this direction already, in a call that was interrupted
  taken,         // the deadline passed while another thread used this direction
  leased,        // a view or a loan of another thread is in the way, at the deadline or for long
};

// Whether a message that has begun to arrive can be received on in a later call.
inline bool goes_on_later(Status status) {
  return status == Status::timed_out || status == Status::interrupted ||
         status == Status::no_resources;
}

}  // namespace proclink
