#include "peer_watch.hpp"

#include <signal.h>
#include <sys/wait.h>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

void a_doorbell_rings_until_drained() {
  SystemError error;
  const Doorbell bell = Doorbell::create(error);
  CHECK(!error);
  const PeerWatch nobody(PeerWatch::kNone, PeerWatch::kNone);
  CHECK(nobody.sleep(bell, Deadline::immediate()) == Woken::timed_out);
  CHECK(!nobody.peer_gone());
  for (int i = 0; i < 3; ++i) bell.ring();
  CHECK(nobody.sleep(bell, Deadline::never()) == Woken::doorbell);
  CHECK(nobody.sleep(bell, Deadline::never()) == Woken::doorbell);
  bell.drain();
  CHECK(nobody.sleep(bell, Deadline::immediate()) == Woken::timed_out);
  bell.drain();  // does not block with nothing to forget
}

void a_full_doorbell_still_rings() {
  SystemError error;
  const Doorbell bell = Doorbell::create(error);
  const std::uint64_t full = ~std::uint64_t{0} - 1;
  CHECK(::write(bell.handle(), &full, sizeof full) == sizeof full);
  bell.ring();  // and does not block
  const PeerWatch nobody(PeerWatch::kNone, PeerWatch::kNone);
  CHECK(nobody.sleep(bell, Deadline::immediate()) == Woken::doorbell);
  bell.drain();
  CHECK(nobody.sleep(bell, Deadline::immediate()) == Woken::timed_out);
}

void doorbells_move() {
  SystemError error;
  Doorbell bell = Doorbell::create(error);
  const int fd = bell.handle();
  Doorbell moved(std::move(bell));
  CHECK(moved.handle() == fd);
  CHECK(bell.handle() == Doorbell::kNone);
  bell = std::move(moved);
  CHECK(bell.handle() == fd);
  CHECK(bell.release() == fd);
  CHECK(bell.handle() == Doorbell::kNone);
  Doorbell(fd).close();
  CHECK(::fcntl(fd, F_GETFD) == -1);
}

enum class End { shut_down, closed, wrote };

void sees_the_end_of_the_control_socket(End how) {
  SystemError error;
  const Doorbell bell = Doorbell::create(error);
  const SocketPair sockets = make_sockets(Transport::local);
  const PeerWatch watch(sockets.a, PeerWatch::kNone);
  CHECK(watch.control() == sockets.a);
  CHECK(!watch.peer_gone());
  {
    Sleeper sleeping([&] { CHECK(watch.sleep(bell, Deadline::never()) == Woken::peer_gone); });
    sleeping.await_asleep();
    if (how == End::shut_down) CHECK(::shutdown(sockets.b, SHUT_RDWR) == 0);
    if (how == End::closed) ::close(sockets.b);
    if (how == End::wrote) CHECK(::write(sockets.b, "x", 1) == 1);
  }
  CHECK(watch.peer_gone());
  bell.ring();
  CHECK(watch.sleep(bell, Deadline::never()) == Woken::peer_gone);  // before the doorbell
  if (how != End::closed) ::close(sockets.b);
}

void says_goodbye_to_both() {
  const SocketPair sockets = make_sockets(Transport::local);
  const PeerWatch here(sockets.a, PeerWatch::kNone);
  const PeerWatch there(sockets.b, PeerWatch::kNone);
  here.say_goodbye();
  CHECK(here.peer_gone());
  CHECK(there.peer_gone());
}

// A forked child of the peer may hold the control socket; the process handle tells all the same.
void sees_the_end_of_the_process() {
  SystemError error;
  const Doorbell bell = Doorbell::create(error);
  const SocketPair sockets = make_sockets(Transport::local);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    for (;;) ::pause();
  }
#ifdef SYS_pidfd_open
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));
#else
  const int process = -1;
#endif
  if (process < 0) std::puts("no process handles here: skipped");
  const PeerWatch watch(sockets.a, process);
  CHECK(!watch.peer_gone());
  CHECK(watch.sleep(bell, Deadline::immediate()) == Woken::timed_out);
  CHECK(::kill(child, SIGKILL) == 0);
  if (process >= 0) {
    CHECK(watch.sleep(bell, Deadline::never()) == Woken::peer_gone);
    CHECK(watch.peer_gone());
  }
  CHECK(::waitpid(child, nullptr, 0) == child);
  ::close(sockets.b);
}

}  // namespace

int main() {
  a_doorbell_rings_until_drained();
  a_full_doorbell_still_rings();
  doorbells_move();
  for (const End how : {End::shut_down, End::closed, End::wrote})
    sees_the_end_of_the_control_socket(how);
  says_goodbye_to_both();
  sees_the_end_of_the_process();
}
