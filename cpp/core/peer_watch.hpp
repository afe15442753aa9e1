// Sleeping until a doorbell rings or the peer is gone.
#pragma once

#include <utility>

#include "clock.hpp"
#include "doorbell.hpp"
#include "system_error.hpp"

namespace proclink {

enum class Woken : unsigned char { doorbell, peer_gone, timed_out, signal, failed };

// Watches the peer of a shared-memory channel: the control socket ends when the peer's process
// does, and the process handle tells it even where a forked child of the peer holds the socket.
class PeerWatch {
 public:
  using Handle = int;
  static constexpr Handle kNone = -1;

  // Takes ownership. `process` may be kNone where the system cannot give one.
  PeerWatch(Handle control, Handle process) : control_(control), process_(process) {}
  // A handle that becomes readable when the process at the other end of `control` ends, whose id is
  // `pid` (0: not known); kNone where the system has no such thing. The caller's to close.
  static Handle open_process(Handle control, long pid, SystemError& error);
  PeerWatch(PeerWatch&& other) noexcept
      : control_(std::exchange(other.control_, kNone)),
        process_(std::exchange(other.process_, kNone)) {}
  PeerWatch& operator=(PeerWatch&&) = delete;
  ~PeerWatch() { close(); }

  Woken sleep(const Doorbell& doorbell, Deadline deadline) const;
  bool peer_gone() const;
  void say_goodbye() const;  // ends the control socket for both sides
  // Ends every sleep of this end, for good, and tells the peer nothing. To sleep again, the closing
  // thread says that from then on only the hang-up of the peer counts.
  void wake_own() const;
  void expect_only_hangup() { only_hangup_ = true; }
  void close();
  Handle control() const { return control_; }

 private:
  Handle control_;
  Handle process_;
  bool only_hangup_ = false;
};

}  // namespace proclink
