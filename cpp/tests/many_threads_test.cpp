// Many threads in one direction of a channel, and one that closes it, also out of a call of its own.
#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr Nanoseconds kSpin = 20'000;
constexpr int kThreads = 5;

std::size_t length_of(std::uint64_t sequence) {
  constexpr std::size_t kLengths[] = {0, 20, 1000, 5000, 40'000};
  return kLengths[sequence % std::size(kLengths)] + sequence % 50;
}

// Each message carries its number in its content (see text()), and in its first eight bytes.
std::vector<std::byte> message(std::uint64_t sequence) {
  std::vector<std::byte> bytes(sizeof sequence + length_of(sequence));
  std::memcpy(bytes.data(), &sequence, sizeof sequence);
  std::memcpy(bytes.data() + sizeof sequence, text(sequence), length_of(sequence));
  return bytes;
}

// Nothing lost, doubled or torn, whoever sends and whoever receives.
template <class Ends>
void many_senders_and_receivers(Ends ends) {
  const auto kEach = static_cast<std::uint64_t>(rounds(2000));
  const std::uint64_t total = kEach * kThreads;
  std::atomic<std::uint64_t> taken{0};
  std::mutex guard;
  std::set<std::uint64_t> received;
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (std::uint64_t n = 0; n < kEach; ++n) {
        const auto bytes = message(i * kEach + n);
        CHECK_STATUS(send(*ends.a, bytes.data(), bytes.size(), hang()), Status::ok);
      }
    });
    threads.emplace_back([&] {
      // What a call leaves unfinished belongs to the next one, so these all finish theirs.
      Receiver receiver(*ends.b);
      while (taken.fetch_add(1) < total) {
        CHECK_STATUS(receiver.receive(hang()), Status::ok);
        std::uint64_t sequence;
        CHECK(receiver.length() >= sizeof sequence);
        std::memcpy(&sequence, receiver.data(), sizeof sequence);
        CHECK(receiver.length() == sizeof sequence + length_of(sequence));
        CHECK(is_text(receiver.data() + sizeof sequence, length_of(sequence), sequence));
        const std::lock_guard lock(guard);
        CHECK(received.insert(sequence).second);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(received.size() == total);
}

// Whatever the others are doing, they end with `closed`, and nothing is used after it was let go.
template <class MakeEnds>
void close_in_the_middle(MakeEnds make_ends) {
  const int kRounds = rounds(50);
  for (int round = 0; round < kRounds; ++round) {
    auto ends = make_ends();
    std::vector<std::thread> threads;
    const auto chatter = [](auto& channel) {
      const auto bytes = message(3);
      Status status;
      do {
        status = send(channel, bytes.data(), bytes.size(), hang());
      } while (status == Status::ok);
      return status;
    };
    const auto listen = [](auto& channel) {
      Receiver receiver(channel);
      Status status;
      do {
        status = receiver.receive(hang());
      } while (status == Status::ok);
      return status;
    };
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&] { CHECK_STATUS(chatter(*ends.a), Status::closed); });
      threads.emplace_back([&] { CHECK_STATUS(listen(*ends.a), Status::closed); });
      threads.emplace_back([&] { CHECK(chatter(*ends.b) != Status::ok); });
      threads.emplace_back([&] { CHECK(listen(*ends.b) != Status::ok); });
    }
    for (int i = 0; i < round % 7; ++i) std::this_thread::yield();
    std::thread also_closing([&] { ends.a->close(); });
    static_cast<void>(ends.a->peer_alive());  // beside whoever lets go of the handles
    ends.a->close();
    also_closing.join();
    for (std::thread& thread : threads) thread.join();
    CHECK(ends.a->is_closed() && !ends.a->owes_close() && !ends.a->peer_alive());
  }
}

// A signal handler closes the channel whose call it interrupted: the call ends and closes it.
StreamChannel* stream_to_close = nullptr;
ShmChannel* shm_to_close = nullptr;

template <class Channel>
Channel*& to_close() {
  if constexpr (std::is_same_v<Channel, StreamChannel>) {
    return stream_to_close;
  } else {
    return shm_to_close;
  }
}

template <class Channel>
bool closes() {
  to_close<Channel>()->close();
  return false;
}

template <class Channel, class Ends>
void closed_out_of_its_own_call(Ends ends, bool sends) {
  Channel& channel = *ends.a;
  to_close<Channel>() = &channel;
  if (sends) {
    // Nobody receives, so in the end this waits for room.
    Status sending;
    do {
      sending = send_text(channel, 1, 3'000'000);
    } while (sending == Status::ok);
    CHECK_STATUS(sending, Status::closed);
  } else {
    Receiver receiver(channel);
    CHECK_STATUS(receiver.receive(hang()), Status::closed);
  }
  CHECK(channel.is_closed() && !channel.owes_close());
  Receiver other(*ends.b);
  Status status;
  do {
    status = other.receive(hang());
  } while (status == Status::ok);
  CHECK(status == Status::peer_closed || (sends && status == Status::truncated) ||
        (sends && status == Status::peer_lost));
}

}  // namespace

int main() {
  text(0);
  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    many_senders_and_receivers(ShmEnds({.spin = spin}));
    many_senders_and_receivers(StreamEnds(Transport::local, {.spin = spin}));
    many_senders_and_receivers(StreamEnds(Transport::tcp, {.spin = spin}));
    close_in_the_middle([&] { return ShmEnds({.spin = spin}); });
    close_in_the_middle([&] { return StreamEnds(Transport::local, {.spin = spin}); });
    close_in_the_middle([&] { return StreamEnds(Transport::tcp, {.spin = spin}); });
    for (const bool sends : {false, true}) {
      const Options shm{.spin = spin, .interruption = {in_every_thread, closes<ShmChannel>}};
      closed_out_of_its_own_call<ShmChannel>(ShmEnds(shm), sends);
      const Options stream{.spin = spin, .interruption = {in_every_thread, closes<StreamChannel>}};
      closed_out_of_its_own_call<StreamChannel>(StreamEnds(Transport::local, stream), sends);
      closed_out_of_its_own_call<StreamChannel>(StreamEnds(Transport::tcp, stream), sends);
    }
  }
}
