// What this machine can do at all: the same exchanges as `proclink bench`, in bare C++ without any
// library, between two processes pinned to CPUs 0 and 1.
//
//     make floor
//
// A figure of proclink is to be read beside the floor of the same minute: a virtual machine's speed
// drifts by a factor of two.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kFrame = 25;  // 16 bytes of payload as proclink frames them

double microseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

void pin(std::size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) std::perror("sched_setaffinity");
}

void must(bool worked, const char* what) {
  if (worked) return;
  std::perror(what);
  std::exit(1);
}

// Runs `there` in a child on CPU 1 and `here` on CPU 0.
void between_two(const std::function<void()>& here, const std::function<void()>& there) {
  std::fflush(stdout);
  const pid_t child = fork();
  must(child >= 0, "fork");
  if (child == 0) {
    pin(1);
    there();
    _exit(0);
  }
  pin(0);
  here();
  waitpid(child, nullptr, 0);
}

std::array<int, 2> unix_pair() {
  std::array<int, 2> ends{};
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0, "socketpair");
  return ends;
}

std::array<int, 2> tcp_pair() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  must(bind(listener, name, size) == 0, "bind");
  must(listen(listener, 1) == 0, "listen");
  must(getsockname(listener, name, &size) == 0, "getsockname");
  const std::array<int, 2> ends{socket(AF_INET, SOCK_STREAM, 0), -1};
  must(connect(ends[0], name, size) == 0, "connect");
  const std::array<int, 2> both{ends[0], accept(listener, nullptr, nullptr)};
  close(listener);
  const int on = 1;
  for (const int end : both) setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return both;
}

// Receives exactly `length` bytes, spinning when `flags` has MSG_DONTWAIT.
void receive(int socket, char* buffer, std::size_t length, int flags) {
  for (std::size_t done = 0; done < length;) {
    const ssize_t count = recv(socket, buffer + done, length - done, flags);
    if (count > 0) done += static_cast<std::size_t>(count);
  }
}

double median(std::vector<double>& samples) {
  std::nth_element(samples.begin(), samples.begin() + static_cast<long>(samples.size() / 2),
                   samples.end());
  return samples[samples.size() / 2];
}

void socket_ping_pong(const char* name, std::array<int, 2> ends, bool spin, int rounds) {
  const int flags = spin ? MSG_DONTWAIT : 0;
  std::array<char, kFrame> buffer{};
  between_two(
      [&] {
        std::vector<double> samples;
        for (int i = 0; i < rounds; ++i) {
          const auto start = Clock::now();
          send(ends[0], buffer.data(), kFrame, MSG_NOSIGNAL);
          receive(ends[0], buffer.data(), kFrame, flags);
          samples.push_back(microseconds(Clock::now() - start));
        }
        std::printf("%-28s %8.2f us\n", name, median(samples));
      },
      [&] {
        for (int i = 0; i < rounds; ++i) {
          receive(ends[1], buffer.data(), kFrame, flags);
          send(ends[1], buffer.data(), kFrame, MSG_NOSIGNAL);
        }
      });
  for (const int end : ends) close(end);
}

// `pauses`: how long the receiver pauses between two looks.
void socket_one_way(const char* name, std::array<int, 2> ends, long messages, int pauses) {
  static std::array<char, 65536> buffer;
  const auto expected = static_cast<std::size_t>(messages) * kFrame;
  between_two(
      [&] {
        const auto start = Clock::now();
        for (long i = 0; i < messages; ++i) send(ends[0], buffer.data(), kFrame, MSG_NOSIGNAL);
        receive(ends[0], buffer.data(), 1, 0);
        const double took = microseconds(Clock::now() - start);
        std::printf("%-12s %3d pauses      %8.2f M msg/s\n", name, pauses,
                    static_cast<double>(messages) / took);
      },
      [&] {
        for (std::size_t done = 0; done < expected;) {
          const ssize_t count = recv(ends[1], buffer.data(), buffer.size(), MSG_DONTWAIT);
          if (count > 0) {
            done += static_cast<std::size_t>(count);
          } else {
            for (int i = 0; i < pauses; ++i) __builtin_ia32_pause();
          }
        }
        send(ends[1], buffer.data(), 1, MSG_NOSIGNAL);
      });
  for (const int end : ends) close(end);
}

void memory_ping_pong(std::size_t size, int rounds) {
  struct Side {
    alignas(128) std::atomic<std::uint64_t> turn;
    alignas(128) std::array<char, 65536> payload;
  };
  auto* const sides = static_cast<Side*>(mmap(nullptr, 2 * sizeof(Side), PROT_READ | PROT_WRITE,
                                              MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  must(sides != MAP_FAILED, "mmap");
  std::vector<char> local(size);
  const auto write = [&](Side& side, std::uint64_t turn) {
    std::memcpy(side.payload.data(), local.data(), size);
    side.turn.store(turn, std::memory_order_release);
  };
  const auto read = [&](Side& side, std::uint64_t turn) {
    while (side.turn.load(std::memory_order_acquire) != turn) __builtin_ia32_pause();
    std::memcpy(local.data(), side.payload.data(), size);
  };
  const auto turns = static_cast<std::uint64_t>(rounds);
  between_two(
      [&] {
        std::vector<double> samples;
        for (std::uint64_t turn = 1; turn <= turns; ++turn) {
          const auto start = Clock::now();
          write(sides[0], turn);
          read(sides[1], turn);
          samples.push_back(microseconds(Clock::now() - start));
        }
        std::printf("shared memory, %5zu B        %8.2f us\n", size, median(samples));
      },
      [&] {
        for (std::uint64_t turn = 1; turn <= turns; ++turn) {
          read(sides[0], turn);
          write(sides[1], turn);
        }
      });
  munmap(sides, 2 * sizeof(Side));
}

}  // namespace

int main() {
  std::puts("round trip, 16 B unless said otherwise, median");
  for (const std::size_t size : {16, 256, 4096, 16384}) memory_ping_pong(size, 100'000);
  socket_ping_pong("unix socket, spinning", unix_pair(), true, 30'000);
  socket_ping_pong("tcp, spinning", tcp_pair(), true, 30'000);
  socket_ping_pong("unix socket, blocking", unix_pair(), false, 10'000);
  socket_ping_pong("tcp, blocking", tcp_pair(), false, 10'000);
  std::puts("one way, one system call a message, 16 B");
  for (const int pauses : {0, 8, 32, 64, 128, 400})
    socket_one_way("unix socket", unix_pair(), 300'000, pauses);
  for (const int pauses : {0, 64, 400}) socket_one_way("tcp", tcp_pair(), 200'000, pauses);
}
