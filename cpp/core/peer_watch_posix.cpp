#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "peer_watch.hpp"
#include "poll_posix.hpp"

namespace proclink {
namespace {

short control_events(bool only_hangup) { return only_hangup ? 0 : POLLIN; }

}  // namespace

Woken PeerWatch::sleep(const Doorbell& doorbell, Deadline deadline) const {
  pollfd watched[3] = {{doorbell.handle(), POLLIN, 0}, {control_, control_events(only_hangup_), 0},
                        {process_, POLLIN, 0}};
  // poll() passes over a negative descriptor.
  const int ready = ::poll(watched, 3, poll_timeout(deadline));
  if (ready < 0) return errno == EINTR ? Woken::signal : Woken::failed;
  if (ready == 0) return Woken::timed_out;
  // Nothing is ever written to the control socket after the handshake, so whatever is there to read
  // (its end, or a byte that has no business here) ends the channel.
  if (watched[1].revents != 0 || watched[2].revents != 0) return Woken::peer_gone;
  return Woken::doorbell;
}

bool PeerWatch::peer_gone() const {
  pollfd watched[2] = {{control_, control_events(only_hangup_), 0}, {process_, POLLIN, 0}};
  return ::poll(watched, 2, 0) > 0;
}

void PeerWatch::say_goodbye() const { ::shutdown(control_, SHUT_RDWR); }

void PeerWatch::wake_own() const { ::shutdown(control_, SHUT_RD); }

void PeerWatch::close() {
  if (control_ != kNone) ::close(std::exchange(control_, kNone));
  if (process_ != kNone) ::close(std::exchange(process_, kNone));
}

}  // namespace proclink
