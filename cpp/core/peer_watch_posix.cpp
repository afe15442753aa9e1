#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "fork_guard.hpp"
#include "peer_watch.hpp"
#include "poll_posix.hpp"

namespace proclink {
namespace {

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5, unix(7)
#endif

short control_events(bool only_hangup) { return only_hangup ? 0 : POLLIN; }

// Whether what failed was a limit, and not a system that has no such thing or a process that is gone.
bool is_limit(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

}  // namespace

PeerWatch::Handle PeerWatch::open_process(Handle control, long pid, SystemError& error) {
  int handle = kNone;
  socklen_t size = sizeof handle;
  if (::getsockopt(control, SOL_SOCKET, SO_PEERPIDFD, &handle, &size) == 0) return handle;
  if (is_limit(errno)) {
    error = {errno, "getsockopt(SO_PEERPIDFD)"};
    return kNone;
  }
  // The process lives, or its socket would have ended: the next sleep sees both.
  handle = pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : kNone;
  if (handle < 0 && pid > 0 && is_limit(errno)) error = {errno, "pidfd_open"};
  return handle < 0 ? kNone : handle;
}

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
  const ForkGuard guard;
  if (control_ != kNone) ::close(std::exchange(control_, kNone));
  if (process_ != kNone) ::close(std::exchange(process_, kNone));
}

}  // namespace proclink
