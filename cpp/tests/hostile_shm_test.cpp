// What one end does when the other writes what it likes into the memory they share. Every call has
// to come back by its deadline, with one of a few statuses, and nothing outside may be touched.
#include <algorithm>

#include "ends.hpp"
#include "shm_channel.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr std::uint64_t kCapacity = Segment::kSmallestRing;
constexpr std::uint64_t kLongestRecord = kCapacity / 2 - kRecordHeader;
constexpr std::uint64_t kLongest = 300'000;

struct HostileEnds : ShmEnds {
  HostileEnds() : ShmEnds({.longest = kLongest}) {}
  RingProducer producer{to_a()};

  void write(std::uint64_t kind, std::uint64_t length, std::uint64_t bytes = kLine) {
    const std::uint64_t header = kind << 56 | length;
    std::memcpy(to_a().at(producer.position()), &header, sizeof header);
    producer.advance(bytes);
    static_cast<void>(producer.publish());
  }
};

void check_corrupt(HostileEnds& ends) {
  Receiver receiver(*ends.a);
  for (int i = 0; i < 3; ++i) {
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::corrupt);
    CHECK(ends.a->violation()[0] != '\0');
  }
}

// --- records that lie
// ------------------------------------------------------------------------------

void a_header_that_lies() {
  for (std::uint64_t kind = 0; kind < 256; ++kind) {
    for (const std::uint64_t length :
         {std::uint64_t{0}, std::uint64_t{1}, kLongestRecord, kLongestRecord + 1, kLongest,
          kLongest + 1, (std::uint64_t{1} << 56) - 1}) {
      const bool record = kind == 1 && length <= kLongestRecord;
      const bool stream = kind == 2 && length > kLongestRecord && length <= kLongest;
      if (record || stream) continue;
      HostileEnds ends;
      ends.write(kind, length);
      check_corrupt(ends);
    }
  }
}

void a_flipped_bit() {
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{40}, kLongestRecord}) {
    for (int bit = 0; bit < 64; ++bit) {
      const std::uint64_t header = (std::uint64_t{1} << 56 | length) ^ (std::uint64_t{1} << bit);
      const std::uint64_t lie = header & ((std::uint64_t{1} << 56) - 1);
      const bool stays_record = header >> 56 == 1 && lie <= kLongestRecord;
      HostileEnds ends;
      ends.write(header >> 56, lie);
      if (stays_record) {
        // It says less or more than was written, which only the peer's own message suffers from.
        Receiver receiver(*ends.a);
        const Status status = receiver.receive(Deadline::after(kMillisecond));
        CHECK(status == (lie <= kLine - kRecordHeader ? Status::ok : Status::timed_out));
      } else {
        check_corrupt(ends);
      }
    }
  }
}

void a_stream_without_its_mark() {
  constexpr std::uint64_t kLength = kLongestRecord + 1;
  constexpr std::uint64_t kBytes = round_to_line(kRecordHeader + kLength);
  const auto behind_a_stream = [](std::uint64_t kind, std::uint64_t length) {
    HostileEnds ends;
    ends.write(2, kLength, kBytes);
    ends.write(kind, length);
    check_corrupt(ends);
  };
  behind_a_stream(1, 0);
  behind_a_stream(1, 10);
  behind_a_stream(2, kLength);
  behind_a_stream(3, 1);
  behind_a_stream(4, 1);
  behind_a_stream(0, 0);
  behind_a_stream(255, 0);
  behind_a_stream(3, (std::uint64_t{1} << 56) - 1);

  HostileEnds ends;
  ends.write(2, kLength, kBytes);
  ends.write(4, 0);
  ends.write(3, 0);  // and one mark is enough
  check_corrupt(ends);
}

// --- positions that lie
// ----------------------------------------------------------------------------

void a_position_that_lies() {
  for (const std::uint64_t lie :
       {kLine - 1, kLine / 2, kCapacity + kLine, 3 * kCapacity, std::uint64_t{1} << 63,
        ~std::uint64_t{0}, ~std::uint64_t{0} - (kLine - 1)}) {
    {
      HostileEnds ends;
      ends.to_a().words->written.store(lie);
      check_corrupt(ends);
    }
    {
      HostileEnds ends;
      Sleeper receiving([&] {
        Receiver receiver(*ends.a);
        CHECK_STATUS(receiver.receive(Deadline::never()), Status::corrupt);
      });
      receiving.await_asleep();
      ends.to_a().words->written.store(lie);
      ends.a_bells.data.ring();
    }
    for (const std::uint64_t length : {std::uint64_t{100}, kLongestRecord, kLongest}) {
      HostileEnds ends;
      ends.to_b().words->read.store(lie);
      Status status = Status::ok;
      for (std::uint64_t sent = 0; status == Status::ok; ++sent) {
        CHECK(sent <= kCapacity / kLine);
        status = send_text(*ends.a, sent, length, Deadline::never());
      }
      CHECK_STATUS(status, Status::corrupt);
      CHECK(ends.a->violation()[0] != '\0');
    }
    {
      HostileEnds ends;
      while (ends.a->try_send(text(0), 1000) == Status::ok) {
      }
      Sleeper sending(
          [&] { CHECK_STATUS(send_text(*ends.a, 1, 1000, Deadline::never()), Status::corrupt); });
      sending.await_asleep();
      ends.to_b().words->read.store(lie);
      ends.a_bells.space.ring();
    }
  }
}

// Both directions may find the peer out in the same moment.
void both_directions_see_it() {
  for (int round = 0; round < 200; ++round) {
    HostileEnds ends;
    ends.to_a().words->written.store(1);
    ends.to_b().words->read.store(1);
    std::thread sending(
        [&] { CHECK_STATUS(send_text(*ends.a, 1, kLongest, Deadline::never()), Status::corrupt); });
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::corrupt);
    sending.join();
  }
}

// --- flags and doorbells that lie
// ------------------------------------------------------------------

void a_state_that_lies() {
  for (const std::uint32_t state : {1u, 2u, 3u, 0x80000000u, 0xffffffffu}) {
    HostileEnds ends;
    for (const RingMemory& ring : {ends.to_a(), ends.to_b()}) {
      ring.words->consumer_state.store(state);
      ring.words->producer_state.store(state);
    }
    const Status status = send_text(*ends.a, 1, 100, soon());
    CHECK_STATUS(status, state == kClosed ? Status::peer_closed : Status::ok);
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
    ends.write(1, 10);
    CHECK_STATUS(receiver.receive(hang()), Status::ok);
  }
}

// A doorbell that never falls silent does not hold a caller beyond its deadline.
void a_doorbell_that_rings_for_ever() {
  const auto endless = [] {
    const int zero = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    CHECK(zero >= 0);
    return Doorbell(zero);
  };
  const auto segment = make_segment();
  const SocketPair control = make_sockets(Transport::local);
  ShmChannel channel(segment, true, Doorbells{endless(), endless()}, make_doorbells(),
                     PeerWatch(control.a, PeerWatch::kNone), {kLongest, kLongest, 0},
                     Interruption());
  Receiver receiver(channel);
  ::alarm(30);  // it would take for ever
  CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
  CHECK_STATUS(send_text(channel, 1, kLongest, soon()), Status::timed_out);
  ::alarm(0);
  {
    Sleeper receiving(
        [&] { CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_lost); });
    ::close(control.b);
  }
}

void make_blocking(const Doorbell& bell) {
  const int flags = ::fcntl(bell.handle(), F_GETFL);
  CHECK(::fcntl(bell.handle(), F_SETFL, flags & ~O_NONBLOCK) == 0);
}

// The peer has the same descriptors: it takes every ring away, and a read would then wait for more.
void own_doorbells_that_block_and_are_emptied() {
  ShmEnds ends({.longest = kLongest});
  std::atomic<bool> over{false};
  std::thread hostile([&] {
    while (!over.load()) {
      for (const Doorbell* bell : {&ends.a_bells.data, &ends.a_bells.space}) {
        make_blocking(*bell);
        const std::uint64_t one = 1;
        CHECK(::write(bell->handle(), &one, sizeof one) > 0);
        bell->drain();
      }
    }
  });
  Receiver receiver(*ends.a);
  for (int round = 0; round < rounds(40); ++round) {
    CHECK_STATUS(receiver.receive(Deadline::after(kMillisecond)), Status::timed_out);
    CHECK_STATUS(send_text(*ends.a, 1, kLongest, Deadline::after(kMillisecond)), Status::timed_out);
  }
  {
    Sleeper receiving(
        [&] { CHECK_STATUS(receiver.receive(Deadline::never()), Status::closed); });
    Sleeper sending(
        [&] { CHECK_STATUS(send_text(*ends.a, 1, 10, Deadline::never()), Status::closed); });
    ends.a->close();
  }
  over.store(true);
  hostile.join();
}

// A counter that is full, in a doorbell that blocks, holds whoever rings it.
void a_peers_doorbell_that_blocks() {
  for (const bool streamed : {false, true}) {
    HostileEnds ends;
    for (const Doorbell* bell : {&ends.b_bells.data, &ends.b_bells.space}) {
      const std::uint64_t full = ~std::uint64_t{0} - 1;
      CHECK(::write(bell->handle(), &full, sizeof full) > 0);
      make_blocking(*bell);
    }
    ends.write(1, 10);
    ends.to_b().words->consumer_state.store(kAsleep);
    ends.to_a().words->producer_state.store(kAsleep);
    CHECK_STATUS(send_text(*ends.a, 1, streamed ? kLongest : 10, hang()), Status::corrupt);
    CHECK(ends.a->violation()[0] != '\0');
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(hang()), Status::ok);
    ends.a->close();
  }
}

// A full counter wakes as well as any.
void a_peers_doorbell_that_is_full() {
  ShmEnds ends;
  const std::uint64_t full = ~std::uint64_t{0} - 1;
  CHECK(::write(ends.b_bells.data.handle(), &full, sizeof full) > 0);
  Receiver receiver(*ends.b);
  for (int i = 0; i < 3; ++i) {
    ends.to_b().words->consumer_state.store(kAsleep);
    CHECK_STATUS(send_text(*ends.a, i, 100), Status::ok);
    check_receives(receiver, i, 100);
  }
}

std::atomic<bool> stop{false};
bool stops() { return stop.load(); }

// A sleep that always ends at once is still ended by a close, a signal handler and the peer's end.
void a_doorbell_rung_without_pause() {
  for (const Status end : {Status::closed, Status::interrupted, Status::peer_lost}) {
    stop.store(false);
    ShmEnds ends({.interruption = Interruption(in_every_thread, stops)});
    std::atomic<bool> over{false};
    std::thread hostile([&] {
      while (!over.load()) ends.a_bells.data.ring();
    });
    {
      Receiver receiver(*ends.a);
      std::thread receiving([&] { CHECK_STATUS(receiver.receive(Deadline::never()), end); });
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
      if (end == Status::closed) ends.a->close();
      if (end == Status::interrupted) stop.store(true);
      if (end == Status::peer_lost) ends.b_vanishes();
      receiving.join();
    }
    over.store(true);
    hostile.join();
  }
}

void whatever_is_on_the_control_socket_ends_it() {
  ShmEnds ends;
  Sleeper receiving([&] {
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_lost);
  });
  receiving.await_asleep();
  CHECK(::send(ends.b->handle(), "hello", 5, 0) == 5);
}

// --- everything at once
// ----------------------------------------------------------------------------

// Writes random values into random words of both rings while the two ends talk. Positions mostly
// come near the right ones, so that they are believed now and then.
class Vandal {
 public:
  Vandal(const Segment& segment, std::uint64_t seed, bool positions)
      : rings_{segment.ring(0), segment.ring(1)}, random_(seed), first_(positions ? 0 : 2) {}

  void strike() {
    const RingMemory& ring = rings_[random_.below(2)];
    switch (first_ + random_.below(8 - first_)) {
      case 0:
        ring.words->written.store(position(ring.words->written.load()));
        return;
      case 1:
        ring.words->read.store(position(ring.words->read.load()));
        return;
      case 2:
        ring.words->consumer_state.store(state());
        return;
      case 3:
        ring.words->producer_state.store(state());
        return;
      case 4:
        word(ring, random_.below(kCapacity / 8)).store(random_.next(), std::memory_order_relaxed);
        return;
      default:  // a header, where one may be
        word(ring, random_.below(kCapacity / kLine) * (kLine / 8))
            .store(header(), std::memory_order_relaxed);
    }
  }

 private:
  static std::atomic_ref<std::uint64_t> word(const RingMemory& ring, std::uint64_t index) {
    return std::atomic_ref<std::uint64_t>(reinterpret_cast<std::uint64_t*>(ring.data)[index]);
  }
  std::uint64_t position(std::uint64_t now) {
    switch (random_.below(8)) {
      case 0:
        return random_.next();
      case 1:
        return now + random_.below(kLine);
      case 2:
        return now - kLine * random_.below(4);
      case 3:
        return now + kCapacity;
      default:
        return now + kLine * random_.below(kCapacity / kLine / 4);
    }
  }
  std::uint32_t state() {
    const std::uint64_t choice = random_.below(16);
    return static_cast<std::uint32_t>(choice == 15   ? std::uint64_t{kClosed}
                                      : choice == 14 ? random_.next()
                                                     : choice % 2);
  }
  std::uint64_t header() {
    const std::uint64_t kind = random_.below(32) == 0 ? random_.below(256) : 1 + random_.below(4);
    const std::uint64_t lengths[] = {0, random_.below(kLine), random_.below(kLongestRecord + 2),
                                     random_.below(kLongest + 2), random_.next() >> 8};
    return kind << 56 | lengths[random_.below(std::size(lengths))];
  }

  RingMemory rings_[2];
  Random random_;
  std::uint64_t first_;  // of the kinds of strikes
};

struct Tally {
  std::atomic<long> counts[16] = {};
  void add(Status status) {
    counts[static_cast<std::size_t>(status)].fetch_add(1, std::memory_order_relaxed);
  }
};

void one_run(std::uint64_t seed, bool both_live, Tally& tally) {
  ShmEnds ends({.longest = kLongest, .spin = seed % 2 == 0 ? 0 : 5000});
  std::atomic<int> playing{0};
  constexpr int kCalls = 60;
  constexpr int kCallsOnceCorrupt = 5;

  const auto allowed = [&](Status status, std::initializer_list<Status> some) {
    tally.add(status);
    if (std::find(some.begin(), some.end(), status) == some.end()) {
      std::fprintf(stderr, "%s is not allowed (seed %llu)\n", name(status),
                   static_cast<unsigned long long>(seed));
      std::abort();
    }
  };
  const auto deadline = [](Random& random) {
    const std::uint64_t choice = random.below(400'000);
    return choice < 100'000 ? Deadline::immediate() : Deadline::after(Nanoseconds(choice));
  };
  const auto send_on = [&](ShmChannel& channel, std::uint64_t stream) {
    Random random(seed * 8 + stream);
    int corrupt = 0;
    for (int call = 0; call < kCalls && corrupt < kCallsOnceCorrupt; ++call) {
      const std::uint64_t choice = random.below(8);
      const std::uint64_t length = random.below(choice == 0   ? kLongest + 1
                                                : choice == 1 ? kLongestRecord + 1
                                                              : 600);
      Status status;
      CHECK_STATUS(take(channel.sending, hang()), Status::ok);
      if (choice == 2) {
        std::byte* room = nullptr;
        status = channel.loan(length, deadline(random), room);
        if (status == Status::ok) {
          std::memcpy(room, text(call), length);
          status = channel.commit_loan(length);
        }
      } else if (choice == 3) {
        do {
          status = channel.put(text(call), length);
        } while (status == Status::ok && random.below(8) != 0);
        if (status == Status::ok) status = channel.flush(deadline(random));
      } else {
        status = channel.try_send(text(call), length);
        if (status == Status::timed_out)
          status = channel.send(text(call), length, deadline(random));
      }
      channel.sending.give();
      allowed(status, {Status::ok, Status::timed_out, Status::corrupt, Status::peer_closed,
                       Status::peer_lost});
      corrupt += status == Status::corrupt;
    }
    playing.fetch_sub(1);
  };
  const auto receive_on = [&](ShmChannel& channel, std::uint64_t stream) {
    Random random(seed * 8 + stream);
    Receiver receiver(channel);
    int corrupt = 0;
    for (int call = 0; call < kCalls && corrupt < kCallsOnceCorrupt; ++call) {
      Status status;
      if (random.below(4) == 0) {
        CHECK_STATUS(take(channel.receiving, hang()), Status::ok);
        status = channel.wait_message(deadline(random));
        if (status == Status::ok && channel.fits_in_place()) {
          status = channel.complete_message(deadline(random));
          if (status == Status::ok) {
            // Every byte of a view can be read.
            std::uint64_t sum = 0;
            for (std::uint64_t i = 0; i < channel.message_length(); i += kLine)
              sum += static_cast<std::uint64_t>(channel.message_data()[i]);
            CHECK(sum <= kCapacity * 255);
          }
        }
        channel.receiving.give();
      } else {
        status = receiver.receive(deadline(random));
        if (status == Status::ok) CHECK(receiver.length() <= kLongest);
      }
      allowed(status, {Status::ok, Status::timed_out, Status::corrupt});
      corrupt += status == Status::corrupt;
    }
    playing.fetch_sub(1);
  };

  std::vector<std::thread> threads;
  const auto play = [&](auto part, ShmChannel& channel, std::uint64_t stream) {
    playing.fetch_add(1);
    threads.emplace_back([&channel, part, stream] { part(channel, stream); });
  };
  play(send_on, *ends.a, 0);
  play(receive_on, *ends.a, 1);
  if (both_live) {
    play(send_on, *ends.b, 2);
    play(receive_on, *ends.b, 3);
  }
  // A lie about a position is soon found out, and then little else happens.
  Vandal vandal(*ends.segment, seed, seed % 4 == 3);
  Random random(~seed);
  const std::uint64_t pause = std::uint64_t{1} << random.below(14);
  while (playing.load(std::memory_order_relaxed) > 0) {
    vandal.strike();
    // Wakes for no reason, as well.
    if (random.below(64) == 0) {
      for (const Doorbells* bells : {&ends.a_bells, &ends.b_bells}) {
        bells->data.ring();
        bells->space.ring();
      }
    }
    for (std::uint64_t i = random.below(pause); i > 0; --i) cpu_relax();
  }
  for (std::thread& thread : threads) thread.join();
  ends.a->close();
  ends.b->close();
}

void random_words() {
  if (kThreadSanitizer) {
    std::puts("random words: skipped, a peer that writes while this end copies is a data race");
    return;
  }
  Tally tally;
  constexpr std::uint64_t kRuns = 400;
  for (std::uint64_t seed = 0; seed < kRuns; ++seed) one_run(seed, seed % 3 != 0, tally);
  std::printf("%llu runs:", static_cast<unsigned long long>(kRuns));
  for (std::size_t i = 0; i < std::size(tally.counts); ++i) {
    if (const long count = tally.counts[i].load(); count > 0)
      std::printf(" %s %ld", name(static_cast<Status>(i)), count);
  }
  std::puts("");
  for (const Status status : {Status::ok, Status::timed_out, Status::corrupt})
    CHECK(tally.counts[static_cast<std::size_t>(status)].load() > 0);
}

}  // namespace

int main() {
  text(0);
  a_header_that_lies();
  a_flipped_bit();
  a_stream_without_its_mark();
  a_position_that_lies();
  both_directions_see_it();
  a_state_that_lies();
  whatever_is_on_the_control_socket_ends_it();
  random_words();
  a_doorbell_that_rings_for_ever();
  ::alarm(100);  // what holds a call holds it for ever
  own_doorbells_that_block_and_are_emptied();
  a_peers_doorbell_that_blocks();
  a_peers_doorbell_that_is_full();
  a_doorbell_rung_without_pause();
}
