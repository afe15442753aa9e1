// Every allocation and every system call of the core fails, one at a time. What is promised: a call
// that fails has done nothing, or the channel is dead. Never a wrong message, never half of one.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "ends.hpp"

namespace {

// The n-th allocation or system call of this thread from now on fails; 0: none.
thread_local int countdown = 0;
thread_local int with_error = 0;

bool fails() {
  if (countdown == 0 || --countdown > 0) return false;
  errno = with_error;
  return true;
}

}  // namespace

// The executable's symbols come before the C library's. Not inlined: the compiler would see a new without
// its delete in one place and a free() without its malloc() in another.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (!fails()) {
    if (void* const memory = std::malloc(size)) return memory;
  }
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new[](std::size_t size) { return operator new(size); }
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return fails() ? nullptr : std::malloc(size);
}
[[gnu::noinline]] void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

extern "C" {
ssize_t send(int fd, const void* data, size_t size, int flags) {
  return fails() ? -1 : ::syscall(SYS_sendto, fd, data, size, flags, nullptr, 0);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return fails() ? -1 : ::syscall(SYS_sendmsg, fd, message, flags);
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return fails() ? -1 : ::syscall(SYS_recvfrom, fd, data, size, flags, nullptr, nullptr);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  return fails() ? -1 : ::syscall(SYS_recvmsg, fd, message, flags);
}
int poll(pollfd* watched, nfds_t count, int timeout) {
  if (fails()) return -1;
  const timespec time{timeout / 1000, timeout % 1000 * 1'000'000};
  return static_cast<int>(
      ::syscall(SYS_ppoll, watched, count, timeout < 0 ? nullptr : &time, nullptr, 0));
}
int eventfd(unsigned int value, int flags) {
  return fails() ? -1 : static_cast<int>(::syscall(SYS_eventfd2, value, flags));
}
int memfd_create(const char* name, unsigned int flags) {
  return fails() ? -1 : static_cast<int>(::syscall(SYS_memfd_create, name, flags));
}
int ftruncate(int fd, off_t size) {
  return fails() ? -1 : static_cast<int>(::syscall(SYS_ftruncate, fd, size));
}
int fallocate(int fd, int mode, off_t offset, off_t size) {
  return fails() ? -1 : static_cast<int>(::syscall(SYS_fallocate, fd, mode, offset, size));
}
int shutdown(int fd, int how) {
  return fails() ? -1 : static_cast<int>(::syscall(SYS_shutdown, fd, how));
}
}

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr int kErrors[] = {ENOMEM, ENOBUFS, EINTR};
constexpr std::size_t kLengths[] = {0, 100, 5000, 300'000};

class Failing {
 public:
  Failing(int place, int error) {
    with_error = error;
    countdown = place;
  }
  ~Failing() { countdown = 0; }
  // Whether there were that many.
  static bool came() { return countdown == 0; }
};

// What the other end gets, until it hears of the end.
template <class Channel>
std::vector<std::uint64_t> receive_all(Channel& channel) {
  std::vector<std::uint64_t> received;
  Receiver receiver(channel);
  while (receiver.receive(hang()) == Status::ok) {
    std::uint64_t sequence = 1;
    while (!is_text(receiver.data(), receiver.length(), sequence)) CHECK(++sequence < 10);
    received.push_back(receiver.length() == 0 ? 0 : sequence);
  }
  return received;
}

enum class Way { one, batch };

template <class Channel>
Status send_one_way(Channel& channel, Way way, std::size_t length) {
  if (way == Way::one) return send_text(channel, 1, length, hang());
  const Status status = take(channel.sending, hang());
  if (status != Status::ok) return status;
  const DirectionLock::Turn turn(channel.sending);
  const Status put = channel.put(text(1), length);
  if (put == Status::timed_out) return channel.send(text(1), length, hang());
  return put == Status::ok ? channel.flush(hang()) : put;
}

// Gives false when no call of the send was left to fail.
template <class Ends>
bool a_send_fails(Ends ends, Way way, std::size_t length, int place, int error) {
  std::vector<std::uint64_t> received;
  std::thread other([&] { received = receive_all(*ends.b); });
  Status first;
  bool came;
  {
    const Failing failing(place, error);
    try {
      first = send_one_way(*ends.a, way, length);
    } catch (const std::bad_alloc&) {
      first = Status::no_resources;
    }
    came = Failing::came();
  }
  const Status second = send_text(*ends.a, 2, 50);
  ends.a->close();
  other.join();
  std::vector<std::uint64_t> expected;
  if (first == Status::ok) expected.push_back(length == 0 ? 0 : 1);
  if (second == Status::ok) expected.push_back(2);
  CHECK(received == expected);
  CHECK(second == Status::ok || first != Status::ok);
  return came;
}

template <class Ends>
bool a_receive_fails(Ends ends, std::size_t length, int place, int error) {
  std::thread other([&] {
    static_cast<void>(send_text(*ends.b, 1, length));
    static_cast<void>(send_text(*ends.b, 2, 50));
  });
  Receiver receiver(*ends.a);
  Status first;
  bool came;
  {
    const Failing failing(place, error);
    try {
      first = receiver.receive(hang());
    } catch (const std::bad_alloc&) {
      first = Status::no_resources;
    }
    came = Failing::came();
  }
  if (first != Status::ok) {
    CHECK_STATUS(first, Status::no_resources);
    first = receiver.receive(hang());
  }
  CHECK_STATUS(first, Status::ok);
  CHECK(receiver.is(1, length));
  check_receives(receiver, 2, 50);
  other.join();
  return came;
}

template <class MakeEnds>
void every_call_fails(MakeEnds make_ends) {
  for (const int error : kErrors) {
    for (const std::size_t length : kLengths) {
      for (const Way way : {Way::one, Way::batch}) {
        for (int place = 1; a_send_fails(make_ends(), way, length, place, error); ++place) {
        }
      }
      for (int place = 1; a_receive_fails(make_ends(), length, place, error); ++place) {
      }
    }
  }
}

int open_descriptors() {
  DIR* const directory = ::opendir("/proc/self/fd");
  CHECK(directory != nullptr);
  int count = 0;
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

void nothing_is_left_of_memory_that_cannot_be_had() {
  const int before = open_descriptors();
  for (int place = 1;; ++place) {
    SystemError error;
    Segment::Handle handle = -1;
    std::shared_ptr<Segment> segment;
    bool came, thrown = false;
    {
      const Failing failing(place, ENOMEM);
      try {
        segment = Segment::create(Segment::kSmallestRing, handle, error);
      } catch (const std::bad_alloc&) {
        thrown = true;
      }
      came = Failing::came();
    }
    if (segment) ::close(handle);
    CHECK(segment || thrown || error.code == ENOMEM);
    CHECK(open_descriptors() == before);
    if (!came) break;
  }
  const Failing failing(1, EMFILE);
  SystemError error;
  const Doorbell none = Doorbell::create(error);
  CHECK(error.code == EMFILE);
}

}  // namespace

int main() {
  text(0);
  constexpr Nanoseconds kSpin = 20'000;
  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    every_call_fails([&] { return ShmEnds({.spin = spin}); });
    every_call_fails([&] { return StreamEnds(Transport::local, {.spin = spin}); });
    every_call_fails([&] { return StreamEnds(Transport::tcp, {.spin = spin}); });
  }
  nothing_is_left_of_memory_that_cannot_be_had();
}
