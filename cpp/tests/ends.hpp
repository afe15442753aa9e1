// Both ends of a channel in one process, and what the tests do with them.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "clock.hpp"
#include "direction_lock.hpp"
#include "limits.hpp"
#include "shm_channel.hpp"
#include "status.hpp"
#include "stream_channel.hpp"

namespace proclink::test {

// --- the build
// -------------------------------------------------------------------------------------

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PROCLINK_THREAD_SANITIZER 1
#elif __has_feature(address_sanitizer)
#define PROCLINK_ADDRESS_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(PROCLINK_THREAD_SANITIZER)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(PROCLINK_ADDRESS_SANITIZER)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif
constexpr bool kSanitizer = kThreadSanitizer || kAddressSanitizer;

// A sanitizer slows every access down, and finds in few rounds what it finds at all.
constexpr int rounds(int count) { return kSanitizer ? count / 8 : count; }

// --- statuses
// --------------------------------------------------------------------------------------

inline const char* name(Status status) {
  constexpr const char* kNames[] = {
      "ok",      "timed_out", "interrupted", "closed", "peer_closed", "peer_lost", "truncated",
      "corrupt", "no_resources", "too_large", "too_small",   "held",   "entered",     "taken",     "leased"};
  return kNames[static_cast<std::size_t>(status)];
}

inline void check_status(Status actual, Status expected, const char* file, int line) {
  if (actual == expected) return;
  std::fprintf(stderr, "%s:%d: %s instead of %s\n", file, line, name(actual), name(expected));
  std::abort();
}
#define CHECK_STATUS(actual, expected) \
  ::proclink::test::check_status(actual, expected, __FILE__, __LINE__)

// --- time
// ------------------------------------------------------------------------------------------

constexpr Nanoseconds kMillisecond = 1'000'000;
constexpr Nanoseconds kSecond = 1'000'000'000;

// Longer than any wait of a test takes, so that a hang fails where it is.
inline Deadline hang() { return Deadline::after(40 * kSecond); }
inline Deadline soon() { return Deadline::after(10 * kMillisecond); }

inline bool in_every_thread() { return true; }

// --- randomness and content
// ------------------------------------------------------------------------

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {  // SplitMix64
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

 private:
  std::uint64_t state_;
};

// Message number `sequence` is a piece of one random text, from a place that tells the number.
constexpr std::size_t kLongestMessage = 8 * 1024 * 1024;

inline const std::byte* text(std::uint64_t sequence) {
  constexpr std::size_t kPlaces = 4096;
  static const std::vector<std::uint64_t> words = [] {
    std::vector<std::uint64_t> made((kLongestMessage + kPlaces) / sizeof(std::uint64_t));
    Random random(1);
    for (std::uint64_t& word : made) word = random.next();
    return made;
  }();
  return reinterpret_cast<const std::byte*>(words.data()) + sequence * 37 % kPlaces;
}

inline bool is_text(const std::byte* message, std::uint64_t length, std::uint64_t sequence) {
  return std::memcmp(message, text(sequence), static_cast<std::size_t>(length)) == 0;
}

// --- threads
// ---------------------------------------------------------------------------------------

// Runs `call` on a thread, and can tell when that thread has gone to sleep in it. A test does not
// depend on the latter; it only makes sure that the sleep is what is tested.
class Sleeper {
 public:
  template <class Call>
  explicit Sleeper(Call call)
      : thread_([this, call = std::move(call)]() mutable {
          id_.store(::syscall(SYS_gettid));
          call();
          done_.store(true);
        }) {}
  ~Sleeper() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  pthread_t native_handle() { return thread_.native_handle(); }

  void await_asleep() const {
    const Deadline bound = hang();
    for (int in_a_row = 0; in_a_row < 4 && !done_.load();) {
      CHECK(!bound.passed());
      in_a_row = id_.load() != 0 && asleep() ? in_a_row + 1 : 0;
      std::this_thread::yield();
    }
  }

 private:
  bool asleep() const {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/task/%ld/stat", id_.load());
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    char stat[256] = {};
    const ssize_t length = ::read(fd, stat, sizeof stat - 1);
    ::close(fd);
    const char* name_end = length > 0 ? std::strrchr(stat, ')') : nullptr;
    return name_end != nullptr && name_end[2] == 'S';
  }

  std::atomic<long> id_{0};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// How often the threads of this process have slept.
inline long sleeps() {
  rusage usage{};
  CHECK(::getrusage(RUSAGE_SELF, &usage) == 0);
  return usage.ru_nvcsw;
}

// --- a turn in a direction, as the bindings take it
// ------------------------------------------------

inline Status take(DirectionLock& lock, Deadline deadline) {
  const Status status = lock.take(deadline, Interruption());
  return status == Status::taken ? Status::timed_out : status;
}

// Ends a call, whatever ends it, as the bindings do: the rest of a close may be its.
template <class Channel>
class Inside {
 public:
  Inside(Channel& channel, DirectionLock& taken) : channel_(channel), lock_(taken) {}
  Inside(const Inside&) = delete;
  ~Inside() { leave(); }
  void leave() {
    if (std::exchange(left_, true)) return;
    lock_.give();
    if (channel_.owes_close()) channel_.finish_close();
  }

 private:
  Channel& channel_;
  DirectionLock& lock_;
  bool left_ = false;
};

// The same for a call whose outcome is known already.
template <class Channel>
Status leave(Channel& channel, DirectionLock& lock, Status status) {
  const Inside inside(channel, lock);
  return status;
}

template <class Channel>
Status send(Channel& channel, const void* message, std::size_t length, Deadline deadline) {
  Status status = take(channel.sending, deadline);
  if (status != Status::ok) return status;
  Inside inside(channel, channel.sending);
  status = channel.try_send(message, length);
  if (status == Status::timed_out) status = channel.send(message, length, deadline);
  inside.leave();
  return status == Status::peer_lost ? channel.how_it_ended() : status;
}

template <class Channel>
Status send_text(Channel& channel, std::uint64_t sequence, std::size_t length,
                 Deadline deadline = hang()) {
  return send(channel, text(sequence), length, deadline);
}

// What begins to arrive in one call and is complete in a later one stays here.
template <class Channel>
class Receiver {
 public:
  explicit Receiver(Channel& channel) : channel_(channel) {}

  Status receive(Deadline deadline) {
    const Status status = take(channel_.receiving, deadline);
    if (status != Status::ok) return status;
    const Inside inside(channel_, channel_.receiving);
    return receive_one(deadline);
  }

  const std::byte* data() const { return message_.get(); }
  std::uint64_t length() const { return length_; }
  bool is(std::uint64_t sequence, std::uint64_t length) const {
    return length_ == length && is_text(message_.get(), length, sequence);
  }

 private:
  // Exactly as long as the message, so that the address sanitizer sees a byte too much.
  void make_room() {
    length_ = channel_.message_length();
    message_.reset(new std::byte[static_cast<std::size_t>(length_)]);
  }

  Status receive_one(Deadline deadline) {
    for (;;) {
      Status status = channel_.poll_message();
      if (status == Status::timed_out) status = channel_.wait_message(deadline);
      if (status != Status::ok) return status;
      if (!pending_) {
        make_room();
        if (channel_.message_complete()) {
          std::memcpy(message_.get(), channel_.message_data(), static_cast<std::size_t>(length_));
          channel_.consume();
          return Status::ok;
        }
        pending_ = true;
      }
      bool restart = false;
      status = channel_.read_message(message_.get(), deadline, restart);
      if (goes_on_later(status)) return status;
      pending_ = false;
      if (status != Status::ok || !restart) return status;
    }
  }

  Channel& channel_;
  std::unique_ptr<std::byte[]> message_;
  std::uint64_t length_ = 0;
  bool pending_ = false;
};

template <class Channel>
void check_receives(Receiver<Channel>& receiver, std::uint64_t sequence, std::uint64_t length) {
  CHECK_STATUS(receiver.receive(hang()), Status::ok);
  CHECK(receiver.is(sequence, length));
}

// --- a channel through shared memory
// ---------------------------------------------------------------

struct Options {
  std::uint64_t capacity = Segment::kSmallestRing;
  std::uint64_t longest = kLongestMessage;
  Nanoseconds spin = 0;
  Interruption interruption = {};
};

inline int duplicate(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  CHECK(copy >= 0);
  return copy;
}

inline Doorbells duplicate(const Doorbells& bells) {
  return {Doorbell(duplicate(bells.data.handle())), Doorbell(duplicate(bells.space.handle()))};
}

inline Doorbells make_doorbells() {
  SystemError error;
  Doorbells bells{Doorbell::create(error), Doorbell::create(error)};
  CHECK(!error);
  return bells;
}

inline std::shared_ptr<Segment> make_segment(std::uint64_t capacity = Segment::kSmallestRing) {
  SystemError error;
  Segment::Handle handle = -1;
  std::shared_ptr<Segment> segment = Segment::create(capacity, handle, error);
  CHECK(segment && !error);
  ::close(handle);
  return segment;
}

// `a` is the creator. A test that plays one end itself leaves that channel alone.
struct ShmEnds {
  std::shared_ptr<Segment> segment;
  Doorbells a_bells = make_doorbells();  // what wakes a
  Doorbells b_bells = make_doorbells();
  std::unique_ptr<ShmChannel> a;
  std::unique_ptr<ShmChannel> b;

  explicit ShmEnds(const Options& options = {}) : segment(make_segment(options.capacity)) {
    int control[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0);
    const Limits limits{options.longest, options.longest, options.spin};
    a = std::make_unique<ShmChannel>(segment, true, duplicate(a_bells), duplicate(b_bells),
                                     PeerWatch(control[0], PeerWatch::kNone), limits,
                                     options.interruption);
    b = std::make_unique<ShmChannel>(segment, false, duplicate(b_bells), duplicate(a_bells),
                                     PeerWatch(control[1], PeerWatch::kNone), limits,
                                     options.interruption);
  }

  RingMemory to_a() const { return segment->ring(1); }
  RingMemory to_b() const { return segment->ring(0); }
  // As if the process of `b` had been killed.
  void b_vanishes() { CHECK(::shutdown(b->handle(), SHUT_RDWR) == 0); }
};

// --- a channel over a socket
// -----------------------------------------------------------------------

enum class Transport { local, tcp };

struct SocketPair {
  int a = -1;
  int b = -1;
};

// `buffer`: of each socket, in bytes; 0 leaves it as it is.
inline SocketPair make_sockets(Transport transport, int buffer = 0) {
  const auto shrink = [&](int fd) {
    if (buffer == 0) return;
    CHECK(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) == 0);
    CHECK(::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) == 0);
  };
  SocketPair pair;
  if (transport == Transport::local) {
    int sockets[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
    pair = {sockets[0], sockets[1]};
    shrink(pair.a);
    shrink(pair.b);
    return pair;
  }
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(listener >= 0);
  shrink(listener);  // what it accepts has the same
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  CHECK(::bind(listener, generic, length) == 0);
  CHECK(::listen(listener, 1) == 0);
  CHECK(::getsockname(listener, generic, &length) == 0);
  pair.a = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(pair.a >= 0);
  shrink(pair.a);
  CHECK(::connect(pair.a, generic, length) == 0);
  pair.b = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  CHECK(pair.b >= 0);
  ::close(listener);
  const int on = 1;
  for (const int fd : {pair.a, pair.b})
    CHECK(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  return pair;
}

inline std::unique_ptr<StreamChannel> make_stream(int socket, const Options& options = {}) {
  return std::make_unique<StreamChannel>(
      socket, Limits{options.longest, options.longest, options.spin}, options.interruption);
}

struct StreamEnds {
  std::unique_ptr<StreamChannel> a;
  std::unique_ptr<StreamChannel> b;

  explicit StreamEnds(Transport transport, const Options& options = {}, int buffer = 0) {
    const SocketPair sockets = make_sockets(transport, buffer);
    a = make_stream(sockets.a, options);
    b = make_stream(sockets.b, options);
  }
};

}  // namespace proclink::test
