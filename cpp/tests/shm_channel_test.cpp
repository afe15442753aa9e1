#include "shm_channel.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr std::uint64_t kCapacity = Segment::kSmallestRing;
constexpr std::uint64_t kLongestRecord = kCapacity / 2 - kRecordHeader;
constexpr Nanoseconds kSpin = 20'000;

// Most messages are short, some are up to `longest`.
std::uint64_t some_length(Random& random, std::uint64_t longest) {
  switch (random.below(16)) {
    case 0:
      return random.below(longest + 1);
    case 1:
    case 2:
      return random.below(5000);
    default:
      return random.below(200);
  }
}

// --- messages go through
// ---------------------------------------------------------------------------

void ping_pong(Nanoseconds spin) {
  ShmEnds ends({.spin = spin});
  const int kRounds = rounds(10'000);
  std::thread echo([&] {
    Receiver receiver(*ends.b);
    for (int i = 0; i < kRounds; ++i) {
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
      CHECK_STATUS(send(*ends.b, receiver.data(), receiver.length(), Deadline::never()),
                   Status::ok);
    }
  });
  Receiver receiver(*ends.a);
  Random random(2);
  for (int i = 0; i < kRounds; ++i) {
    const std::uint64_t length = some_length(random, 20'000);
    CHECK_STATUS(send_text(*ends.a, i, length, Deadline::never()), Status::ok);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
    CHECK(receiver.is(i, length));
  }
  echo.join();
}

void one_way(int count, std::uint64_t longest, const Options& options) {
  ShmEnds ends(options);
  std::thread sender([&] {
    Random random(3);
    for (int i = 0; i < count; ++i)
      CHECK_STATUS(send_text(*ends.a, i, some_length(random, longest), Deadline::never()),
                   Status::ok);
  });
  Receiver receiver(*ends.b);
  Random random(3);
  for (int i = 0; i < count; ++i) {
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
    CHECK(receiver.is(i, some_length(random, longest)));
  }
  sender.join();
  CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
}

void every_length_around_the_limits(std::uint64_t capacity) {
  ShmEnds ends({.capacity = capacity});
  const RingMemory ring = ends.to_b();
  std::vector<std::uint64_t> lengths;
  for (const std::uint64_t middle :
       {std::uint64_t{kLine}, std::uint64_t{kShortestStep}, 2 * std::uint64_t{kShortestStep},
        std::uint64_t{kLongestStep}, 2 * std::uint64_t{kLongestStep}, ring.longest_record(),
        capacity, capacity + ring.stream_piece(), 3 * capacity}) {
    for (std::uint64_t length = middle - 20; length <= middle + 20; ++length)
      lengths.push_back(length);
  }
  std::thread sender([&] {
    for (std::size_t i = 0; i < lengths.size(); ++i)
      CHECK_STATUS(send_text(*ends.a, i, lengths[i]), Status::ok);
  });
  Receiver receiver(*ends.b);
  for (std::size_t i = 0; i < lengths.size(); ++i) check_receives(receiver, i, lengths[i]);
  sender.join();
}

void too_large_and_empty() {
  ShmEnds ends({.longest = 100'000});
  CHECK_STATUS(send_text(*ends.a, 0, 100'001), Status::too_large);
  CHECK_STATUS(ends.a->put(text(0), 100'001), Status::too_large);
  std::byte* room = nullptr;
  CHECK_STATUS(ends.a->loan(100'001, hang(), room), Status::too_large);
  CHECK_STATUS(send_text(*ends.a, 1, 0), Status::ok);
  Receiver receiver(*ends.b);
  check_receives(receiver, 1, 0);
  std::thread sender([&] { CHECK_STATUS(send_text(*ends.a, 2, 100'000), Status::ok); });
  check_receives(receiver, 2, 100'000);
  sender.join();
}

// A message that is received in pieces, over many calls that give up.
void goes_on_after_a_receive_gave_up() {
  for (const std::uint64_t length : {kLongestRecord, 4 * kCapacity + 100}) {
    ShmEnds ends;
    Receiver receiver(*ends.b);
    CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
    std::atomic<bool> sent{false};
    std::thread sender([&] {
      CHECK_STATUS(send_text(*ends.a, 1, length), Status::ok);
      sent.store(true);
    });
    Status status;
    const Deadline bound = hang();
    do {
      status = receiver.receive(Deadline::after(1000));
      CHECK(!bound.passed());
    } while (status == Status::timed_out);
    CHECK_STATUS(status, Status::ok);
    CHECK(receiver.is(1, length));
    sender.join();
  }
}

// --- full rings
// ------------------------------------------------------------------------------------

void a_full_ring_takes_no_more() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  std::uint64_t sent = 0;
  while (a.try_send(text(sent), 1000) == Status::ok) ++sent;
  CHECK(sent == kCapacity / round_to_line(kRecordHeader + 1000));
  CHECK_STATUS(a.try_send(text(sent), 1000), Status::timed_out);
  CHECK_STATUS(a.send(text(sent), 1000, Deadline::immediate()), Status::timed_out);
  CHECK_STATUS(a.send(text(sent), 1000, soon()), Status::timed_out);
  Receiver receiver(*ends.b);
  check_receives(receiver, 0, 1000);
  CHECK_STATUS(a.try_send(text(sent), 1000), Status::ok);
  CHECK_STATUS(a.try_send(text(sent), 1000), Status::timed_out);
  for (std::uint64_t i = 1; i <= sent; ++i) check_receives(receiver, i, 1000);
  CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
  CHECK_STATUS(a.try_send(text(0), kLongestRecord + 1), Status::timed_out);  // has to be streamed
  CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
}

// Both ends send into full rings, and each receives only when its send gave up.
void both_send_into_full_rings() {
  ShmEnds ends;
  const int kCount = rounds(2000);
  const auto play = [&](ShmChannel& channel) {
    Receiver receiver(channel);
    Random random(4);
    int sent = 0;
    int received = 0;
    const auto length = [](int i) { return 10'000 + std::uint64_t(i) * 997 % 20'000; };
    while (sent < kCount || received < kCount) {
      if (sent < kCount) {
        const Status status =
            send_text(channel, sent, length(sent), Deadline::after(random.below(kMillisecond)));
        if (status == Status::ok) {
          ++sent;
          continue;
        }
        CHECK_STATUS(status, Status::timed_out);
      }
      const Deadline deadline =
          sent < kCount ? Deadline::after(random.below(kMillisecond)) : hang();
      const Status status = received < kCount ? receiver.receive(deadline) : Status::timed_out;
      if (status == Status::ok) {
        CHECK(receiver.is(received, length(received)));
        ++received;
      } else {
        CHECK_STATUS(status, Status::timed_out);
      }
    }
  };
  std::thread other([&] { play(*ends.b); });
  play(*ends.a);
  other.join();
}

// --- sends that give up in the middle
// --------------------------------------------------------------

void a_stream_that_gave_up_delivers_nothing(std::uint64_t length) {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  std::uint64_t sequence = 0;
  for (int round = 0; round < 3; ++round) {
    CHECK_STATUS(send_text(a, sequence, 10), Status::ok);
    const Status status = send_text(a, 99, length, round == 0 ? Deadline::immediate() : soon());
    CHECK_STATUS(status, Status::timed_out);
    // Nothing may pass the rest of it, and to try is allowed as often as one likes.
    for (int i = 0; i < 5; ++i) {
      CHECK_STATUS(a.try_send(text(98), 10), Status::timed_out);
      CHECK_STATUS(a.put(text(98), 10), Status::timed_out);
      std::byte* room = nullptr;
      CHECK_STATUS(a.loan(10, Deadline::immediate(), room), Status::timed_out);
      CHECK_STATUS(a.send(text(97), length, soon()), Status::timed_out);
    }
    check_receives(receiver, sequence++, 10);
    // The receiver sees it begin, takes what there is, and waits for the rest. The loop leaves it
    // in the middle of the stream.
    CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
    for (int i = 0; i < 3; ++i) {
      static_cast<void>(a.send(text(97), length, Deadline::immediate()));
      CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
    }
    std::thread sender([&, first = sequence] {
      CHECK_STATUS(send_text(a, first, 20), Status::ok);
      CHECK_STATUS(send_text(a, first + 1, length), Status::ok);
      CHECK_STATUS(send_text(a, first + 2, 30), Status::ok);
    });
    check_receives(receiver, sequence++, 20);
    check_receives(receiver, sequence++, length);
    check_receives(receiver, sequence++, 30);
    sender.join();
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
  }
}

// Sender and receiver give up at arbitrary moments; what was sent arrives, and nothing else.
void streams_that_give_up_at_any_moment(Nanoseconds spin) {
  ShmEnds ends({.spin = spin});
  const int kCount = rounds(1500);
  std::vector<std::uint64_t> sent;  // the sequence numbers; read after the join
  std::thread sender([&] {
    Random random(5);
    for (int i = 0; i < kCount; ++i) {
      const bool last = i == kCount - 1;
      const auto length = std::uint64_t(i) * 7919 % 200'000;
      const Deadline deadline = last ? hang() : Deadline::after(random.below(200'000));
      const Status status = send_text(*ends.a, i, length, deadline);
      if (status == Status::ok) sent.push_back(i);
      CHECK(status == Status::ok || (status == Status::timed_out && !last));
    }
  });
  Receiver receiver(*ends.b);
  Random random(6);
  std::vector<std::uint64_t> received;
  const Deadline bound = hang();
  for (std::uint64_t i = 0; i < std::uint64_t(kCount);) {
    CHECK(!bound.passed());
    const Status status = receiver.receive(Deadline::after(random.below(200'000)));
    if (status == Status::timed_out) continue;
    CHECK_STATUS(status, Status::ok);
    while (!receiver.is(i, i * 7919 % 200'000)) CHECK(++i < std::uint64_t(kCount));
    received.push_back(i++);
  }
  sender.join();
  CHECK(sent == received);
  std::printf("%zu of %d messages were sent in time\n", sent.size(), kCount);
}

// --- batches
// ---------------------------------------------------------------------------------------

void a_batch_shows_when_flushed() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  CHECK_STATUS(send_text(a, 0, 0), Status::ok);  // away from the start of a publication step
  check_receives(receiver, 0, 0);
  CHECK_STATUS(a.flush(Deadline::immediate()), Status::ok);  // of nothing
  for (int i = 0; i < 10; ++i) CHECK_STATUS(a.put(text(i), 100), Status::ok);
  CHECK_STATUS(ends.b->poll_message(), Status::timed_out);
  CHECK_STATUS(a.flush(Deadline::immediate()), Status::ok);
  CHECK(a.unflushed() == 0);
  for (int i = 0; i < 10; ++i) check_receives(receiver, i, 100);
  CHECK_STATUS(ends.b->poll_message(), Status::timed_out);
}

void a_long_batch_shows_before() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  std::uint64_t put = 0;
  while (a.put(text(put), 100) == Status::ok) ++put;
  CHECK(put == kCapacity / 128);
  std::uint64_t received = 0;
  while (ends.b->poll_message() == Status::ok) check_receives(receiver, received++, 100);
  CHECK(received >= put - kBatchStep / 128);
  CHECK_STATUS(a.flush(Deadline::immediate()), Status::ok);
  while (received < put) check_receives(receiver, received++, 100);
  CHECK_STATUS(a.put(text(0), kBatchStep / 2), Status::ok);
  CHECK_STATUS(send_text(a, 2, 5), Status::ok);  // shows what was put before it
  check_receives(receiver, 0, kBatchStep / 2);
  check_receives(receiver, 2, 5);
}

// In any ring: what a batch takes is a record that its receiver believes.
void a_batch_takes_what_fits_a_record(std::uint64_t capacity) {
  ShmEnds ends({.capacity = capacity});
  ShmChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  const std::uint64_t longest = ends.to_b().longest_in_batch();
  for (std::uint64_t length = longest - 2 * kLine; length <= longest; ++length) {
    CHECK_STATUS(a.put(text(length), length), Status::ok);
    check_receives(receiver, length, length);  // longer than a step of the batch, so shown at once
  }
  for (const std::uint64_t length :
       {longest + 1, ends.to_b().longest_record(), ends.to_b().longest_record() + 1, capacity}) {
    CHECK_STATUS(a.put(text(0), length), Status::timed_out);
    CHECK_STATUS(ends.b->poll_message(), Status::timed_out);
  }
}

// As the bindings do it: what a batch does not take now is sent, in its place.
void a_batch_longer_than_its_ring_arrives(std::uint64_t capacity) {
  ShmEnds ends({.capacity = capacity});
  const std::uint64_t limits[] = {100, kBatchStep, ends.to_b().longest_in_batch() + kLine,
                                  ends.to_b().longest_record() + kLine, 2 * capacity};
  for (const std::uint64_t longest : limits) {
    const std::uint64_t count = 3 * capacity / longest + 20;
    const auto length = [&](std::uint64_t i) { return longest - i * 7 % 100; };
    std::thread sender([&] {
      ShmChannel& a = *ends.a;
      CHECK_STATUS(take(a.sending, hang()), Status::ok);
      for (std::uint64_t i = 0; i < count; ++i) {
        Status status = a.put(text(i), length(i));
        if (status == Status::timed_out) {
          CHECK_STATUS(a.flush(Deadline::never()), Status::ok);
          status = a.send(text(i), length(i), Deadline::never());
        }
        CHECK_STATUS(status, Status::ok);
      }
      CHECK_STATUS(a.flush(Deadline::never()), Status::ok);
      a.sending.give();
    });
    Receiver receiver(*ends.b);
    for (std::uint64_t i = 0; i < count; ++i) check_receives(receiver, i, length(i));
    sender.join();
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
  }
}

void a_flush_wakes() {
  ShmEnds ends;
  Sleeper receiving([&] {
    Receiver receiver(*ends.b);
    check_receives(receiver, 1, 10);
    check_receives(receiver, 2, 10);
  });
  receiving.await_asleep();
  CHECK_STATUS(ends.a->put(text(1), 10), Status::ok);
  CHECK_STATUS(ends.a->put(text(2), 10), Status::ok);
  CHECK_STATUS(ends.a->flush(Deadline::immediate()), Status::ok);
}

// --- in place
// --------------------------------------------------------------------------------------

void a_loan_is_written_in_place() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  CHECK(a.longest_loan() == kLongestRecord);
  std::byte* room = nullptr;
  for (int round = 0; round < 10; ++round) {
    CHECK_STATUS(a.loan(kLongestRecord, Deadline::immediate(), room), Status::ok);
    std::memcpy(room, text(1), kLongestRecord);
    CHECK_STATUS(ends.b->poll_message(), Status::timed_out);
    // A loan that is not committed never was there.
    CHECK_STATUS(a.loan(5000, Deadline::immediate(), room), Status::ok);
    std::memcpy(room, text(2), 5000);
    CHECK_STATUS(a.commit_loan(4000), Status::ok);  // and may turn out shorter
    check_receives(receiver, 2, 4000);
    CHECK_STATUS(a.loan(kLongestRecord, Deadline::immediate(), room), Status::ok);
    std::memcpy(room, text(3), kLongestRecord);
    CHECK_STATUS(a.commit_loan(kLongestRecord), Status::ok);
    CHECK_STATUS(a.loan(0, Deadline::immediate(), room), Status::ok);
    CHECK_STATUS(a.commit_loan(0), Status::ok);
    check_receives(receiver, 3, kLongestRecord);
    check_receives(receiver, 3, 0);
  }
  while (send_text(a, 0, 1000, Deadline::immediate()) == Status::ok) {
  }
  CHECK_STATUS(a.loan(1000, Deadline::immediate(), room), Status::timed_out);
  CHECK_STATUS(a.loan(1000, soon(), room), Status::timed_out);
  Sleeper loaning([&] {
    CHECK_STATUS(a.loan(1000, Deadline::never(), room), Status::ok);
    CHECK_STATUS(a.commit_loan(1000), Status::ok);
  });
  loaning.await_asleep();
  check_receives(receiver, 0, 1000);
}

// A record published in steps, by hand.
struct SteppedRecord {
  static constexpr std::uint64_t kLength = 10'000;
  static constexpr std::uint64_t kTotal = round_to_line(kRecordHeader + kLength);
  ShmEnds& ends;
  RingProducer producer{ends.to_a()};
  std::uint64_t published = 0;

  // The peer's steps need not be this end's.
  static constexpr std::uint64_t kStep = 4096;

  bool step() {
    const std::uint64_t bytes = std::min(kStep, kTotal - published);
    if (published == 0) {
      producer.begin(RecordKind::data, kLength);
      std::memcpy(producer.payload(), text(1), kLength);
    }
    producer.advance(bytes);
    published += bytes;
    if (producer.publish() == PeerWas::asleep) ends.a_bells.data.ring();
    return published < kTotal;
  }
};

void a_record_is_complete_after_its_last_step() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  SteppedRecord record{ends};
  CHECK(record.step());
  CHECK_STATUS(a.poll_message(), Status::ok);
  CHECK(a.message_length() == SteppedRecord::kLength);
  CHECK(a.fits_in_place());
  CHECK(!a.message_complete());
  CHECK_STATUS(a.complete_message(Deadline::immediate()), Status::timed_out);
  CHECK_STATUS(a.complete_message(soon()), Status::timed_out);
  {
    Sleeper completing([&] { CHECK_STATUS(a.complete_message(Deadline::never()), Status::ok); });
    do {
      completing.await_asleep();
    } while (record.step());
  }
  CHECK(a.message_complete());
  CHECK(is_text(a.message_data(), SteppedRecord::kLength, 1));
  a.consume();
  CHECK_STATUS(a.poll_message(), Status::timed_out);
  CHECK(record.producer.room() == kCapacity);
}

void a_record_is_copied_step_by_step() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  SteppedRecord record{ends};
  std::vector<std::byte> message(SteppedRecord::kLength);
  bool restart = true;
  CHECK(record.step());
  CHECK_STATUS(a.wait_message(Deadline::never()), Status::ok);
  CHECK_STATUS(a.read_message(message.data(), Deadline::immediate(), restart), Status::timed_out);
  CHECK(a.copied() == SteppedRecord::kStep - kRecordHeader);
  CHECK(!a.fits_in_place() && !a.message_complete());
  while (record.step()) {
    CHECK_STATUS(a.read_message(message.data(), Deadline::immediate(), restart), Status::timed_out);
    CHECK(a.copied() == record.published - kRecordHeader);
  }
  CHECK_STATUS(a.read_message(message.data(), Deadline::immediate(), restart), Status::ok);
  CHECK(!restart);
  CHECK(is_text(message.data(), message.size(), 1));
}

// The rest of a record is looked for shortly: what is there is copied, and nothing given back early.
void a_record_is_read_soon() {
  for (const bool whole : {true, false}) {
    ShmEnds ends;
    ShmChannel& a = *ends.a;
    SteppedRecord record{ends};
    std::vector<std::byte> message(SteppedRecord::kLength);
    bool restart = true;
    CHECK(record.step());
    CHECK_STATUS(a.poll_message(), Status::ok);
    CHECK(!a.read_soon(message.data()));
    CHECK(a.copied() == SteppedRecord::kStep - kRecordHeader);
    CHECK(!a.read_soon(message.data()));
    CHECK(a.copied() == SteppedRecord::kStep - kRecordHeader);
    CHECK(record.producer.room() == kCapacity - record.published);  // nothing given back
    CHECK(record.step());
    if (whole) {
      CHECK(!record.step());
      CHECK(a.read_soon(message.data()));
    } else {
      CHECK(!a.read_soon(message.data()));
      CHECK(!record.step());
      CHECK_STATUS(a.read_message(message.data(), Deadline::immediate(), restart), Status::ok);
    }
    CHECK(is_text(message.data(), message.size(), 1));
    CHECK(record.producer.room() == kCapacity);
    CHECK_STATUS(a.poll_message(), Status::timed_out);
  }
  // A stream is none of its business, and what is wrong is told by read_message().
  ShmEnds ends;
  std::vector<std::byte> message(SteppedRecord::kLength);
  CHECK_STATUS(send_text(*ends.b, 1, 1'000'000, soon()), Status::timed_out);
  CHECK_STATUS(ends.a->poll_message(), Status::ok);
  CHECK(!ends.a->read_soon(message.data()));
  CHECK(ends.a->copied() == 0);

  ShmEnds lying;
  SteppedRecord record{lying};
  CHECK(record.step());
  CHECK_STATUS(lying.a->poll_message(), Status::ok);
  lying.to_a().words->written.store(1);
  CHECK(!lying.a->read_soon(message.data()));
  bool restart = false;
  CHECK_STATUS(lying.a->read_message(message.data(), Deadline::never(), restart), Status::corrupt);
}

// --- closing
// ---------------------------------------------------------------------------------------

void fill(ShmChannel& channel) {
  while (channel.try_send(text(0), 1000) == Status::ok) {
  }
  while (channel.try_send(text(0), 0) == Status::ok) {
  }
}

void close_wakes_everyone(Nanoseconds spin) {
  ShmEnds ends({.spin = spin});
  ShmChannel& a = *ends.a;
  fill(a);
  const auto receive = [&] {
    Receiver receiver(a);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::closed);
  };
  const auto send_one = [&] {
    CHECK_STATUS(send_text(a, 1, 10, Deadline::never()), Status::closed);
  };
  // One of each pair sleeps in the channel, the other waits for its lock.
  Sleeper receiving(receive), sending(send_one), also_receiving(receive), also_sending(send_one);
  for (const Sleeper* sleeper : {&receiving, &sending, &also_receiving, &also_sending})
    sleeper->await_asleep();
  a.close();
  for (Sleeper* sleeper : {&receiving, &sending, &also_receiving, &also_sending}) sleeper->join();
  CHECK(a.is_closed());
  CHECK(!a.peer_alive());
  a.close();
  Receiver receiver(a);
  CHECK_STATUS(receiver.receive(Deadline::never()), Status::closed);
  CHECK_STATUS(send_text(a, 1, 10, Deadline::never()), Status::closed);
  CHECK_STATUS(a.send(text(1), 10, Deadline::never()), Status::closed);
}

void close_wakes_a_stream() {
  ShmEnds ends;
  Sleeper sending(
      [&] { CHECK_STATUS(send_text(*ends.a, 1, 1'000'000, Deadline::never()), Status::closed); });
  sending.await_asleep();
  ends.a->close();
  Receiver receiver(*ends.b);
  CHECK_STATUS(receiver.receive(Deadline::never()), Status::truncated);
}

// The rest of a stream has as long to pass as the close says, also for a peer that sends first.
void close_behind_a_stream(bool peer_sends_first) {
  ShmEnds ends;
  Sleeper sending(
      [&] { CHECK_STATUS(send_text(*ends.a, 1, 1'000'000, Deadline::never()), Status::closed); });
  sending.await_asleep();
  Sleeper peer([&] {
    if (peer_sends_first) CHECK_STATUS(send_text(*ends.b, 1, 1'000'000), Status::ok);
    while (!ends.a->is_closed()) std::this_thread::yield();  // or the stream would pass before it
    Receiver receiver(*ends.b);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_closed);
  });
  if (peer_sends_first) peer.await_asleep();
  CHECK_STATUS(ends.a->close(hang()), Status::ok);
}

// Whoever sees the end first says it for both directions, and nothing is written for nobody.
void a_loss_stays_a_loss() {
  for (const bool receiver_sees_it : {false, true}) {
    ShmEnds ends;
    ends.b_vanishes();
    Receiver receiver(*ends.a);
    if (receiver_sees_it) CHECK_STATUS(receiver.receive(hang()), Status::peer_lost);
    int sent = 0;
    while (send_text(*ends.a, 1, 10) == Status::ok) ++sent;
    CHECK(!receiver_sees_it || sent == 0);
    const std::uint64_t written = ends.to_b().words->written.load();
    ends.to_b().words->consumer_state.store(kClosed);  // too late to have meant it
    for (int i = 0; i < 300; ++i) {
      CHECK_STATUS(send_text(*ends.a, 1, i % 2 == 0 ? 10 : 1'000'000), Status::peer_lost);
      CHECK_STATUS(ends.a->put(text(1), 10), Status::peer_lost);
      CHECK_STATUS(ends.a->flush(hang()), Status::peer_lost);
    }
    CHECK(ends.to_b().words->written.load() == written);
    CHECK_STATUS(receiver.receive(hang()), Status::peer_lost);
  }
}

void close_wakes_a_reader_of_a_stream() {
  ShmEnds ends;
  CHECK_STATUS(send_text(*ends.b, 1, 1'000'000, soon()), Status::timed_out);
  Sleeper receiving([&] {
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::closed);
  });
  receiving.await_asleep();
  ends.a->close();
}

void close_at_any_moment(Nanoseconds spin) {
  const int kRounds = rounds(400);
  for (int round = 0; round < kRounds; ++round) {
    ShmEnds ends({.spin = spin});
    std::atomic<int> received{0};
    const auto receive = [&](ShmChannel& channel) {
      Receiver receiver(channel);
      Status status;
      while ((status = receiver.receive(Deadline::never())) == Status::ok) received.fetch_add(1);
      CHECK(status == Status::closed || status == Status::peer_closed ||
            status == Status::truncated);
    };
    const auto send_on = [&](ShmChannel& channel) {
      Status status;
      for (std::uint64_t i = 0;
           (status = send_text(channel, i, i * 7919 % 50'000, Deadline::never())) == Status::ok;
           ++i) {
      }
      CHECK(status == Status::closed || status == Status::peer_closed);
    };
    std::vector<std::thread> threads;
    for (ShmChannel* channel : {ends.a.get(), ends.b.get()}) {
      threads.emplace_back([&, channel] { receive(*channel); });
      threads.emplace_back([&, channel] { send_on(*channel); });
    }
    const Deadline bound = hang();
    while (received.load() < round % 50) {
      CHECK(!bound.passed());
      std::this_thread::yield();
    }
    (round % 2 == 0 ? ends.a : ends.b)->close();
    for (std::thread& thread : threads) thread.join();
  }
}

void close_passes_a_lease() {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  CHECK_STATUS(send_text(*ends.b, 1, 100), Status::ok);
  CHECK_STATUS(take(a.receiving, hang()), Status::ok);
  CHECK_STATUS(a.wait_message(hang()), Status::ok);
  CHECK(a.message_complete());
  const std::byte* const view = a.message_data();
  const std::shared_ptr<Segment> memory = a.memory();
  DirectionLock::Turn(a.receiving).lease(1);
  Receiver receiver(a);
  CHECK_STATUS(receiver.receive(Deadline::never()), Status::held);
  CHECK_STATUS(take(a.sending, hang()), Status::ok);
  std::byte* room = nullptr;
  CHECK_STATUS(a.loan(100, hang(), room), Status::ok);
  DirectionLock::Turn(a.sending).lease(1);
  a.close();
  CHECK(!a.receiving.end_lease());
  CHECK(!a.sending.end_lease());
  ends.a.reset();
  ends.b.reset();
  ends.segment.reset();
  CHECK(is_text(view, 100, 1));  // the view keeps the memory
  std::memcpy(room, text(2), 100);
}

// --- a peer that closes
// ----------------------------------------------------------------------------

void what_the_peer_sent_arrives_before_its_end() {
  ShmEnds ends;
  for (int i = 0; i < 20; ++i) CHECK_STATUS(send_text(*ends.b, i, i * 100), Status::ok);
  CHECK_STATUS(send_text(*ends.b, 20, kLongestRecord), Status::ok);
  ends.b->close();
  CHECK(!ends.a->peer_alive());
  Receiver receiver(*ends.a);
  for (int i = 0; i < 20; ++i) check_receives(receiver, i, i * 100);
  check_receives(receiver, 20, kLongestRecord);
  for (int i = 0; i < 3; ++i) {
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_closed);
    CHECK_STATUS(receiver.receive(soon()), Status::peer_closed);
  }
  CHECK_STATUS(send_text(*ends.a, 0, 10), Status::peer_closed);
  CHECK_STATUS(ends.a->flush(Deadline::immediate()), Status::peer_closed);
}

enum class Leaves { closes, vanishes };

void leave(ShmEnds& ends, Leaves how) {
  if (how == Leaves::closes) {
    ends.b->close();
  } else {
    ends.b_vanishes();
  }
}

Status end_of(Leaves how) {
  return how == Leaves::closes ? Status::peer_closed : Status::peer_lost;
}

void the_end_of_the_peer_wakes(Leaves how, Nanoseconds spin) {
  ShmEnds ends({.spin = spin});
  fill(*ends.a);
  Sleeper receiving([&] {
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(Deadline::never()), end_of(how));
  });
  Sleeper sending([&] { CHECK_STATUS(send_text(*ends.a, 1, 10, Deadline::never()), end_of(how)); });
  receiving.await_asleep();
  sending.await_asleep();
  CHECK(ends.a->peer_alive());
  leave(ends, how);
  receiving.join();
  sending.join();
  CHECK(!ends.a->peer_alive());
}

void the_end_of_the_peer_wakes_a_stream(Leaves how) {
  ShmEnds ends;
  Sleeper sending(
      [&] { CHECK_STATUS(send_text(*ends.a, 1, 1'000'000, Deadline::never()), end_of(how)); });
  sending.await_asleep();
  leave(ends, how);
}

void an_end_in_the_middle_truncates(Leaves how) {
  for (const bool streamed : {false, true}) {
    ShmEnds ends;
    SteppedRecord record{ends};
    if (streamed) {
      CHECK_STATUS(send_text(*ends.b, 1, 1'000'000, soon()), Status::timed_out);
    } else {
      CHECK(record.step());
    }
    Sleeper receiving([&] {
      Receiver receiver(*ends.a);
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::truncated);
    });
    receiving.await_asleep();
    if (streamed) {
      ends.b_vanishes();
    } else {
      leave(ends, how);
    }
  }
  ShmEnds ends;
  SteppedRecord record{ends};
  CHECK(record.step());
  CHECK_STATUS(ends.a->wait_message(Deadline::never()), Status::ok);
  Sleeper completing(
      [&] { CHECK_STATUS(ends.a->complete_message(Deadline::never()), Status::truncated); });
  completing.await_asleep();
  leave(ends, how);
}

// Wherever in a record its sender ends, nothing of it is received, by no kind of call.
void an_end_between_any_two_steps_leaves_nothing(Leaves how) {
  constexpr std::uint64_t kSteps = (SteppedRecord::kTotal - 1) / SteppedRecord::kStep + 1;
  static_assert(kSteps > 2);
  for (std::uint64_t steps = 0; steps < kSteps; ++steps) {
    for (const bool read_soon : {false, true}) {
      ShmEnds ends;
      ShmChannel& a = *ends.a;
      CHECK_STATUS(send_text(*ends.b, 7, 100), Status::ok);
      SteppedRecord record{ends};
      record.producer.advance(round_to_line(kRecordHeader + 100));  // behind what b sent
      for (std::uint64_t i = 0; i < steps; ++i) CHECK(record.step());
      leave(ends, how);
      Receiver receiver(a);
      check_receives(receiver, 7, 100);
      const Status status = steps == 0 ? end_of(how) : Status::truncated;
      if (read_soon && steps > 0) {
        std::vector<std::byte> message(SteppedRecord::kLength);
        CHECK_STATUS(a.wait_message(Deadline::never()), Status::ok);
        CHECK(!a.message_complete());
        CHECK(!a.read_soon(message.data()));
        bool restart = false;
        CHECK_STATUS(a.read_message(message.data(), Deadline::never(), restart), status);
        CHECK_STATUS(a.complete_message(Deadline::never()), status);
      }
      for (int i = 0; i < 3; ++i) CHECK_STATUS(receiver.receive(Deadline::never()), status);
    }
  }
}

// A stream given up by a sender that then closes in order was never to be delivered; still the
// receiver that had begun it hears of its end at once.
void a_close_behind_a_given_up_stream_ends_the_receiver() {
  ShmEnds ends;
  CHECK_STATUS(send_text(*ends.b, 1, 1'000'000, soon()), Status::timed_out);
  ends.b->close();
  Receiver receiver(*ends.a);
  const Status status = receiver.receive(Deadline::never());
  CHECK(status == Status::truncated || status == Status::peer_closed);
}

void sends_to_nobody_end(Leaves how, std::uint64_t length, bool only_tries, bool read_before) {
  ShmEnds ends;
  ShmChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  if (read_before) {
    for (int i = 0; i < 100; ++i) {
      CHECK_STATUS(send_text(a, i, 500), Status::ok);
      check_receives(receiver, i, 500);
    }
  }
  leave(ends, how);
  const std::uint64_t most = 2 * kCapacity / kLine;
  std::uint64_t sent = 0;
  Status status = Status::ok;
  while (status == Status::ok) {
    CHECK(++sent <= most);
    status =
        only_tries ? a.try_send(text(sent), length) : send_text(a, sent, length, Deadline::never());
  }
  CHECK_STATUS(status, end_of(how));
}

// Calls that only try find the end too: a caller that polls would go on for ever.
void a_caller_that_polls_sees_the_end(Leaves how) {
  {
    ShmEnds ends;
    Receiver receiver(*ends.a);
    CHECK_STATUS(send_text(*ends.b, 1, 100), Status::ok);
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::ok);
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
    CHECK_STATUS(send_text(*ends.b, 2, 100), Status::ok);
    leave(ends, how);
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::ok);
    CHECK(receiver.is(2, 100));
    CHECK_STATUS(receiver.receive(Deadline::immediate()), end_of(how));
  }
  {
    ShmEnds ends;
    SteppedRecord record{ends};
    CHECK(record.step());
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
    leave(ends, how);
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::truncated);
  }
  {
    ShmEnds ends;
    fill(*ends.a);
    CHECK_STATUS(send_text(*ends.a, 1, 10, Deadline::immediate()), Status::timed_out);
    leave(ends, how);
    CHECK_STATUS(send_text(*ends.a, 1, 10, Deadline::immediate()), end_of(how));
  }
}

// A forked child lets go of its copy, and nobody hears of it.
void abandoning_says_nothing() {
  ShmEnds ends;
  const int parents_copy = duplicate(ends.b->handle());
  ends.b->abandon();
  CHECK(ends.b->is_closed());
  CHECK(ends.a->peer_alive());
  CHECK_STATUS(send_text(*ends.a, 1, 10), Status::ok);
  Receiver receiver(*ends.a);
  CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
  ::close(parents_copy);
  CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_lost);
}

void destruction_without_close_is_a_loss() {
  ShmEnds ends;
  CHECK_STATUS(send_text(*ends.b, 1, 10), Status::ok);
  ends.b.reset();
  Receiver receiver(*ends.a);
  check_receives(receiver, 1, 10);
  CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_lost);
}

// --- sleeping and waking
// ---------------------------------------------------------------------------

// Every wait sleeps. A wake that is lost hangs the test.
void wakes_for_data() {
  ShmEnds ends;
  const int kRounds = rounds(45'000);
  std::thread echo([&] {
    Receiver receiver(*ends.b);
    for (int i = 0; i < kRounds; ++i) {
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
      CHECK_STATUS(send_text(*ends.b, i, 8, Deadline::never()), Status::ok);
    }
  });
  Receiver receiver(*ends.a);
  for (int i = 0; i < kRounds; ++i) {
    CHECK_STATUS(send_text(*ends.a, i, 8, Deadline::never()), Status::ok);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
    CHECK(receiver.is(i, 8));
  }
  echo.join();
}

// Two threads of one end sleep at once, for data and for space, and the other end wakes each in
// turn.
void wakes_for_data_and_space_at_once() {
  ShmEnds ends;
  const int kRounds = rounds(20'000);
  constexpr std::uint64_t kLength = 20'000;
  std::thread sender([&] {
    for (int i = 0; i < kRounds; ++i)
      CHECK_STATUS(send_text(*ends.a, i, kLength, Deadline::never()), Status::ok);
  });
  std::thread receiving([&] {
    Receiver receiver(*ends.a);
    for (int i = 0; i < kRounds; ++i) {
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
      CHECK(receiver.is(i, 100));
    }
  });
  Receiver receiver(*ends.b);
  for (int i = 0; i < kRounds; ++i) {
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
    CHECK(receiver.is(i, kLength));
    CHECK_STATUS(send_text(*ends.b, i, 100, Deadline::never()), Status::ok);
  }
  sender.join();
  receiving.join();
}

// All four directions of the two ends, with streams and records that fill the rings.
void wakes_in_every_direction(Nanoseconds spin) {
  ShmEnds ends({.spin = spin});
  const int kCount = rounds(8000);
  const auto length = [](int i) { return std::uint64_t(i) * 7919 % 70'000; };
  std::vector<std::thread> threads;
  for (ShmChannel* channel : {ends.a.get(), ends.b.get()}) {
    threads.emplace_back([&, channel] {
      for (int i = 0; i < kCount; ++i)
        CHECK_STATUS(send_text(*channel, i, length(i), Deadline::never()), Status::ok);
    });
    threads.emplace_back([&, channel] {
      Receiver receiver(*channel);
      for (int i = 0; i < kCount; ++i) {
        CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
        CHECK(receiver.is(i, length(i)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Many threads share each direction of each end.
void many_threads_share_a_channel() {
  ShmEnds ends;
  constexpr int kThreads = 3;
  const int kEach = rounds(4000);
  std::atomic<std::uint64_t> bytes_sent{0}, bytes_received{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      Random random(i);
      for (int round = 0; round < kEach; ++round) {
        const std::uint64_t length = some_length(random, 40'000);
        CHECK_STATUS(send_text(*ends.a, 0, length, Deadline::never()), Status::ok);
        bytes_sent.fetch_add(length);
      }
    });
    threads.emplace_back([&] {
      Receiver receiver(*ends.b);
      for (int round = 0; round < kEach; ++round) {
        CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
        CHECK(is_text(receiver.data(), receiver.length(), 0));
        bytes_received.fetch_add(receiver.length());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(bytes_sent.load() == bytes_received.load());
}

void sleep_and_wake() {
  const long before = sleeps();
  wakes_for_data();
  wakes_for_data_and_space_at_once();
  wakes_in_every_direction(0);
  wakes_in_every_direction(kSpin);
  std::printf("%ld sleeps and wakes\n", sleeps() - before);
}

// --- signals
// ---------------------------------------------------------------------------------------

std::atomic<bool> signalled{false};

bool was_signalled() { return signalled.exchange(false); }
constexpr Interruption kSignals(in_every_thread, was_signalled);

void a_signal_interrupts() {
  ShmEnds ends({.interruption = kSignals});
  ShmChannel& a = *ends.a;
  const auto interrupt = [](Sleeper& sleeper) {
    sleeper.await_asleep();
    signalled.store(true);
    CHECK(::pthread_kill(sleeper.native_handle(), SIGUSR1) == 0);
    sleeper.join();
    CHECK(!signalled.load());
  };
  Receiver receiver(a);
  {
    Sleeper receiving(
        [&] { CHECK_STATUS(receiver.receive(Deadline::never()), Status::interrupted); });
    interrupt(receiving);
  }
  {
    Sleeper sending(
        [&] { CHECK_STATUS(send_text(a, 1, 1'000'000, Deadline::never()), Status::interrupted); });
    interrupt(sending);
  }
  // The message whose send was interrupted is not delivered, the next one is.
  std::thread sender([&] { CHECK_STATUS(send_text(a, 2, 100), Status::ok); });
  Receiver other(*ends.b);
  check_receives(other, 2, 100);
  sender.join();
  // A receive that is interrupted in the middle of a message goes on later.
  SteppedRecord record{ends};
  CHECK(record.step());
  {
    Sleeper receiving(
        [&] { CHECK_STATUS(receiver.receive(Deadline::never()), Status::interrupted); });
    interrupt(receiving);
  }
  while (record.step()) {
  }
  check_receives(receiver, 1, SteppedRecord::kLength);
}

// A signal whose handler asks for nothing does not end a call.
void a_signal_alone_does_not_end_a_call() {
  ShmEnds ends({.interruption = kSignals});
  Sleeper receiving([&] {
    Receiver receiver(*ends.a);
    check_receives(receiver, 1, 10);
  });
  for (int i = 0; i < 3; ++i) {
    receiving.await_asleep();
    CHECK(::pthread_kill(receiving.native_handle(), SIGUSR1) == 0);
  }
  receiving.await_asleep();
  CHECK_STATUS(send_text(*ends.b, 1, 10), Status::ok);
}

}  // namespace

int main() {
  text(0);
  struct sigaction action{};
  action.sa_handler = [](int) {};
  CHECK(::sigaction(SIGUSR1, &action, nullptr) == 0);

  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    ping_pong(spin);
    one_way(rounds(200'000), 20'000, {.spin = spin});
    one_way(rounds(8000), 300'000, {.spin = spin});
  }
  one_way(rounds(20'000), 300'000, {.capacity = 1 << 20});
  for (std::uint64_t capacity = kCapacity; capacity <= 16 * kCapacity; capacity *= 2)
    every_length_around_the_limits(capacity);
  too_large_and_empty();
  goes_on_after_a_receive_gave_up();

  a_full_ring_takes_no_more();
  both_send_into_full_rings();

  // The mark alone missing; one line missing; much missing.
  for (const std::uint64_t length : {kCapacity, kCapacity + kLine, std::uint64_t{1'000'000}})
    a_stream_that_gave_up_delivers_nothing(length - kRecordHeader);
  streams_that_give_up_at_any_moment(0);
  streams_that_give_up_at_any_moment(kSpin);

  a_batch_shows_when_flushed();
  a_long_batch_shows_before();
  for (const std::uint64_t capacity : {kCapacity, 2 * kCapacity, 16 * kCapacity}) {
    a_batch_takes_what_fits_a_record(capacity);
    a_batch_longer_than_its_ring_arrives(capacity);
  }
  a_flush_wakes();

  a_loan_is_written_in_place();
  a_record_is_complete_after_its_last_step();
  a_record_is_copied_step_by_step();
  a_record_is_read_soon();

  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    close_wakes_everyone(spin);
    close_at_any_moment(spin);
  }
  close_wakes_a_stream();
  close_wakes_a_reader_of_a_stream();
  close_behind_a_stream(false);
  close_behind_a_stream(true);
  a_loss_stays_a_loss();
  close_passes_a_lease();

  what_the_peer_sent_arrives_before_its_end();
  for (const Leaves how : {Leaves::closes, Leaves::vanishes}) {
    the_end_of_the_peer_wakes(how, 0);
    the_end_of_the_peer_wakes(how, kSpin);
    the_end_of_the_peer_wakes_a_stream(how);
    an_end_in_the_middle_truncates(how);
    an_end_between_any_two_steps_leaves_nothing(how);
    for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{1000}, kLongestRecord}) {
      for (const bool read_before : {false, true}) {
        sends_to_nobody_end(how, length, false, read_before);
        if (length < kLongestRecord) sends_to_nobody_end(how, length, true, read_before);
      }
    }
    sends_to_nobody_end(how, 1'000'000, false, true);
  }
  a_close_behind_a_given_up_stream_ends_the_receiver();
  abandoning_says_nothing();
  destruction_without_close_is_a_loss();
  for (const Leaves how : {Leaves::closes, Leaves::vanishes}) a_caller_that_polls_sees_the_end(how);

  many_threads_share_a_channel();
  sleep_and_wake();

  a_signal_interrupts();
  a_signal_alone_does_not_end_a_call();
}
