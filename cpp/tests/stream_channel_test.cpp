#include "stream_channel.hpp"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <string>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr Nanoseconds kSpin = 20'000;
constexpr Transport kTransports[] = {Transport::local, Transport::tcp};
constexpr int kSmallBuffer = 8 * 1024;

// --- frames by hand
// --------------------------------------------------------------------------------

using Bytes = std::vector<std::byte>;

void add_header(Bytes& bytes, std::uint64_t kind, std::uint64_t length) {
  for (int shift = 0; shift < 56; shift += 8) bytes.push_back(std::byte(length >> shift & 0xff));
  bytes.push_back(std::byte(kind));
}

void add_frame(Bytes& bytes, std::uint64_t sequence, std::uint64_t length, int mark = 1) {
  add_header(bytes, 1, length);
  bytes.insert(bytes.end(), text(sequence), text(sequence) + length);
  bytes.push_back(std::byte(mark));
}

void add_goodbye(Bytes& bytes) {
  add_header(bytes, 2, 0);
  bytes.push_back(std::byte{1});
}

// One channel, and the bare socket at its other end.
struct HalfStream {
  int peer;
  std::unique_ptr<StreamChannel> channel;
  Receiver<StreamChannel> receiver;

  explicit HalfStream(const Options& options = {}, Transport transport = Transport::local,
                      int buffer = 0)
      : HalfStream(make_sockets(transport, buffer), options) {}
  ~HalfStream() { hang_up(); }

  void write(const std::byte* bytes, std::size_t length) {
    while (length > 0) {
      const ssize_t count = ::send(peer, bytes, length, MSG_NOSIGNAL);
      CHECK(count > 0);
      bytes += count;
      length -= static_cast<std::size_t>(count);
    }
  }
  void write(const Bytes& bytes) { write(bytes.data(), bytes.size()); }
  void hang_up() {
    if (peer >= 0) ::close(std::exchange(peer, -1));
  }

 private:
  HalfStream(SocketPair sockets, const Options& options)
      : peer(sockets.b), channel(make_stream(sockets.a, options)), receiver(*channel) {}
};

// What add_frame() made, in order; a mark of 0 is a message given up.
struct Frame {
  std::uint64_t length;
  bool counts;
};

const Frame kFrames[] = {{0, true},  {1, true},   {7, false}, {8, true},   {0, false},   {9, true},
                         {40, true}, {63, false}, {64, true}, {300, true}, {300, false}, {5, true}};

Bytes some_frames() {
  Bytes bytes;
  for (std::size_t i = 0; i < std::size(kFrames); ++i)
    add_frame(bytes, i, kFrames[i].length, kFrames[i].counts ? 1 : 0);
  add_goodbye(bytes);
  return bytes;
}

// Receives what is there of some_frames(). `next`: the first frame not yet received.
void receive_some(Receiver<StreamChannel>& receiver, std::size_t& next) {
  Status status;
  while ((status = receiver.receive(Deadline::immediate())) == Status::ok) {
    while (next < std::size(kFrames) && !kFrames[next].counts) ++next;
    CHECK(next < std::size(kFrames));
    CHECK(receiver.is(next, kFrames[next].length));
    ++next;
  }
  CHECK_STATUS(status, Status::timed_out);
}

// --- messages go through
// ---------------------------------------------------------------------------

void every_length(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin});
  std::vector<std::uint64_t> lengths;
  for (std::uint64_t length = 0; length < 100; ++length) lengths.push_back(length);
  for (const std::uint64_t middle : {4096, 16 * 1024, 64 * 1024, 128 * 1024}) {
    for (std::uint64_t length = middle - 10; length <= middle + 10; ++length)
      lengths.push_back(length);
  }
  Random random(7);
  for (int i = 0; i < rounds(2000); ++i)
    lengths.push_back(random.below(i % 8 == 0 ? 200'001 : 6000));
  std::thread sender([&] {
    for (std::size_t i = 0; i < lengths.size(); ++i)
      CHECK_STATUS(send_text(*ends.a, i, lengths[i], Deadline::never()), Status::ok);
  });
  Receiver receiver(*ends.b);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    CHECK_STATUS(receiver.receive(i % 2 == 0 ? Deadline::never() : hang()), Status::ok);
    CHECK(receiver.is(i, lengths[i]));
  }
  sender.join();
  CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
  CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
}

void ping_pong(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin});
  const int kRounds = rounds(4000);
  std::thread echo([&] {
    Receiver receiver(*ends.b);
    for (int i = 0; i < kRounds; ++i) {
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
      CHECK_STATUS(send(*ends.b, receiver.data(), receiver.length(), Deadline::never()),
                   Status::ok);
    }
  });
  Receiver receiver(*ends.a);
  for (int i = 0; i < kRounds; ++i) {
    const auto length = std::uint64_t(i) * 97 % 3000;
    CHECK_STATUS(send_text(*ends.a, i, length, Deadline::never()), Status::ok);
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::ok);
    CHECK(receiver.is(i, length));
  }
  echo.join();
}

void several_megabytes(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin});
  constexpr std::uint64_t kLength = 5'000'000;
  std::vector<std::thread> threads;
  for (StreamChannel* channel : {ends.a.get(), ends.b.get()}) {
    threads.emplace_back([channel] {
      for (int i = 0; i < 3; ++i) CHECK_STATUS(send_text(*channel, i, kLength + i), Status::ok);
    });
    threads.emplace_back([channel] {
      Receiver receiver(*channel);
      for (int i = 0; i < 3; ++i) check_receives(receiver, i, kLength + i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void byte_by_byte(Nanoseconds spin) {
  HalfStream half({.spin = spin});
  const Bytes bytes = some_frames();
  std::size_t next = 0;
  std::size_t complete = 0;  // bytes up to the end of the last message that counts
  std::size_t position = 0;
  for (std::size_t i = 0; i < std::size(kFrames); ++i) {
    position += kFrames[i].length + 9;
    if (kFrames[i].counts) complete = position;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    half.write(&bytes[i], 1);
    receive_some(half.receiver, next);
    CHECK((next == std::size(kFrames)) == (i + 1 >= complete));
  }
  half.hang_up();
  CHECK_STATUS(half.receiver.receive(Deadline::never()), Status::peer_closed);
}

void dribbled(Transport transport, Nanoseconds spin) {
  HalfStream half({.spin = spin}, transport);
  const Bytes bytes = some_frames();
  std::thread writer([&] {
    for (const std::byte& byte : bytes) {
      half.write(&byte, 1);
      std::this_thread::yield();
    }
  });
  for (std::size_t i = 0; i < std::size(kFrames); ++i) {
    if (kFrames[i].counts) check_receives(half.receiver, i, kFrames[i].length);
  }
  writer.join();
  half.hang_up();
  CHECK_STATUS(half.receiver.receive(Deadline::never()), Status::peer_closed);
}

void split_at_every_byte() {
  const Bytes bytes = some_frames();
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    HalfStream half;
    std::size_t next = 0;
    half.write(bytes.data(), split);
    receive_some(half.receiver, next);
    half.write(bytes.data() + split, bytes.size() - split);
    receive_some(half.receiver, next);
    CHECK(next == std::size(kFrames));
    half.hang_up();
    CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::peer_closed);
  }
}

// The same around the lengths from which on a payload goes straight to its destination.
void long_frames_split() {
  for (const std::uint64_t length : {16 * 1024, 16 * 1024 + 1, 65'527, 65'528, 65'536, 100'000}) {
    for (const int mark : {0, 1}) {
      Bytes bytes;
      add_frame(bytes, 1, length, mark);
      add_frame(bytes, 2, 10);
      for (const std::size_t split :
           {std::size_t{8}, std::size_t{9}, std::size_t(length) - 16'384 + 8,
            std::size_t(length) + 7, std::size_t(length) + 8, std::size_t(length) + 9,
            std::size_t(length) + 12}) {
        HalfStream half;
        half.write(bytes.data(), split);
        Status status = half.receiver.receive(Deadline::immediate());
        if (status == Status::ok) {
          CHECK(mark == 1 && half.receiver.is(1, length));
        } else {
          CHECK_STATUS(status, Status::timed_out);
        }
        const bool had_first = status == Status::ok;
        half.write(bytes.data() + split, bytes.size() - split);
        if (mark == 1 && !had_first) check_receives(half.receiver, 1, length);
        check_receives(half.receiver, 2, 10);
        CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::timed_out);
      }
    }
  }
}

void many_frames_in_one_read() {
  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    HalfStream half({.spin = spin});
    Bytes bytes;
    for (int i = 0; i < 5000; ++i) add_frame(bytes, i, i % 23, i % 5 == 3 ? 0 : 1);
    std::thread writer([&] { half.write(bytes); });
    for (int i = 0; i < 5000; ++i) {
      if (i % 5 != 3) check_receives(half.receiver, i, i % 23);
    }
    writer.join();
    CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::timed_out);
  }
}

void what_is_sent_is_what_is_documented() {
  HalfStream half;
  CHECK_STATUS(send_text(*half.channel, 3, 10), Status::ok);
  CHECK_STATUS(send_text(*half.channel, 4, 10'000), Status::ok);
  half.channel->close();
  Bytes expected;
  add_frame(expected, 3, 10);
  add_frame(expected, 4, 10'000);
  add_goodbye(expected);
  Bytes sent(expected.size());
  CHECK(::recv(half.peer, sent.data(), sent.size(), MSG_WAITALL) == ssize_t(sent.size()));
  CHECK(sent == expected);
  std::byte more;
  CHECK(::recv(half.peer, &more, 1, 0) == 0);
}

void too_large_leaves_the_channel_usable() {
  StreamEnds ends(Transport::local, {.longest = 1000});
  Receiver receiver(*ends.b);
  CHECK_STATUS(ends.a->try_send(text(0), 1001), Status::too_large);
  CHECK_STATUS(ends.a->send(text(0), 1001, hang()), Status::too_large);
  CHECK_STATUS(ends.a->put(text(0), 1001), Status::too_large);
  CHECK_STATUS(ends.a->put(text(1), 1000), Status::ok);
  CHECK_STATUS(ends.a->put(text(0), 1001), Status::too_large);
  CHECK_STATUS(ends.a->flush(hang()), Status::ok);
  check_receives(receiver, 1, 1000);
  CHECK_STATUS(send_text(*ends.a, 2, 1000), Status::ok);
  check_receives(receiver, 2, 1000);
  CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
}

// --- batches
// ---------------------------------------------------------------------------------------

void a_batch_goes_out_when_flushed(Transport transport) {
  StreamEnds ends(transport);
  Receiver receiver(*ends.b);
  CHECK_STATUS(ends.a->flush(Deadline::immediate()), Status::ok);  // of nothing
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100; ++i) CHECK_STATUS(ends.a->put(text(i), i * 5), Status::ok);
    CHECK(ends.a->unflushed() == 100);
    CHECK_STATUS(ends.b->wait_message(Deadline::immediate()), Status::timed_out);
    CHECK_STATUS(ends.a->flush(hang()), Status::ok);
    CHECK(ends.a->unflushed() == 0);
    for (int i = 0; i < 100; ++i) check_receives(receiver, i, i * 5);
  }
  CHECK_STATUS(ends.a->put(text(0), StreamChannel::kCopied + 1), Status::timed_out);
  std::uint64_t put = 0;
  while (ends.a->put(text(put), StreamChannel::kCopied) == Status::ok) ++put;
  CHECK(put > 10);
  CHECK_STATUS(ends.a->flush(hang()), Status::ok);
  for (std::uint64_t i = 0; i < put; ++i) check_receives(receiver, i, StreamChannel::kCopied);
}

// A flush that gives up tells how many messages will not be delivered, and those are not.
void a_flush_that_gives_up(Transport transport) {
  StreamEnds ends(transport, {}, kSmallBuffer);
  Receiver receiver(*ends.b);
  Random random(8);
  std::uint64_t delivered = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> expected;  // sequence and length
  std::uint64_t sequence = 0;
  bool gave_up = false;
  for (int round = 0; round < 50; ++round) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> batch;
    for (std::uint64_t i = random.below(40); i > 0; --i) {
      const std::uint64_t length = random.below(2000);
      if (ends.a->put(text(sequence), length) != Status::ok) break;
      batch.emplace_back(sequence++, length);
    }
    const Deadline deadline =
        random.below(2) == 0 ? Deadline::immediate() : Deadline::after(kMillisecond);
    const Status status = ends.a->flush(deadline);
    CHECK(status == Status::ok || status == Status::timed_out);
    CHECK((status == Status::ok) <= (ends.a->unflushed() == 0));
    CHECK(ends.a->unflushed() <= batch.size());
    gave_up = gave_up || status == Status::timed_out;
    batch.resize(batch.size() - ends.a->unflushed());
    expected.insert(expected.end(), batch.begin(), batch.end());
    // Now and then some of it is received, also in the middle of a frame that was given up.
    while (delivered < expected.size() && random.below(8) != 0) {
      if (receiver.receive(Deadline::after(kMillisecond)) != Status::ok) break;
      CHECK(receiver.is(expected[delivered].first, expected[delivered].second));
      ++delivered;
    }
  }
  CHECK(gave_up);
  std::thread sender([&] { CHECK_STATUS(send_text(*ends.a, 77, 12'345), Status::ok); });
  for (; delivered < expected.size(); ++delivered)
    check_receives(receiver, expected[delivered].first, expected[delivered].second);
  check_receives(receiver, 77, 12'345);
  sender.join();
}

// The socket is full in the middle of a header: what follows later still has to complete that
// header before it fills up the payload.
void a_flush_that_gives_up_in_a_header() {
  // How much a socket takes of one call depends on the system alone.
  const auto take_in = [](const HalfStream& half) {
    int count = 0;
    CHECK(::ioctl(half.peer, FIONREAD, &count) == 0);
    return count;
  };
  const auto fill = [](StreamChannel& channel, std::uint64_t first) {
    std::uint64_t bytes = 0;
    for (std::uint64_t length = first; channel.put(text(bytes), length) == Status::ok; length = 300)
      bytes += 1;
    CHECK_STATUS(channel.flush(Deadline::immediate()), Status::timed_out);
  };
  HalfStream measured({}, Transport::local, kSmallBuffer);
  fill(*measured.channel, 300);
  const int taken = take_in(measured);
  CHECK(taken > 1000);
  int in_a_header = 0;
  for (std::uint64_t first = 300; first < 300 + 320; ++first) {
    HalfStream half({}, Transport::local, kSmallBuffer);
    fill(*half.channel, first);
    const std::uint64_t behind_the_first = std::uint64_t(take_in(half)) - (first + 9);
    const std::uint64_t in_a_frame = behind_the_first % 309;
    if (in_a_frame == 0 || in_a_frame > 8) continue;
    ++in_a_header;
    std::thread sender([&] {
      CHECK_STATUS(send_text(*half.channel, 7, 50), Status::ok);
      half.channel->close();
    });
    // The peer is another channel, so that what it receives is checked.
    const std::unique_ptr<StreamChannel> other = make_stream(std::exchange(half.peer, -1));
    Receiver receiver(*other);
    check_receives(receiver, 0, first);
    for (std::uint64_t i = 1; i <= behind_the_first / 309; ++i) check_receives(receiver, i, 300);
    check_receives(receiver, 7, 50);
    CHECK_STATUS(receiver.receive(hang()), Status::peer_closed);
    sender.join();
  }
  CHECK(in_a_header > 0);
}

// The count is of the batch flushed last, and not of one before it.
void an_empty_batch_leaves_nothing_unflushed() {
  StreamEnds ends(Transport::local, {}, kSmallBuffer);
  CHECK_STATUS(send_text(*ends.a, 1, 1'000'000, Deadline::immediate()), Status::timed_out);
  for (int i = 0; i < 3; ++i) CHECK_STATUS(ends.a->put(text(i), 100), Status::ok);
  CHECK_STATUS(ends.a->flush(Deadline::immediate()), Status::timed_out);
  CHECK(ends.a->unflushed() == 3);
  CHECK_STATUS(ends.a->flush(Deadline::immediate()), Status::ok);
  CHECK(ends.a->unflushed() == 0);
}

// --- sends that give up in the middle
// --------------------------------------------------------------

void a_send_that_gave_up_delivers_nothing(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin}, kSmallBuffer);
  StreamChannel& a = *ends.a;
  Receiver receiver(*ends.b);
  std::uint64_t sequence = 0;
  for (int round = 0; round < 3; ++round) {
    CHECK_STATUS(send_text(a, sequence, 10), Status::ok);
    const Deadline deadline = round == 0 ? Deadline::immediate() : soon();
    CHECK_STATUS(send_text(a, 99, 3'000'000, deadline), Status::timed_out);
    for (int i = 0; i < 3; ++i) {
      CHECK_STATUS(a.try_send(text(98), 10), Status::timed_out);
      CHECK_STATUS(a.send(text(98), 10, Deadline::immediate()), Status::timed_out);
      CHECK_STATUS(a.send(text(98), 10, soon()), Status::timed_out);
      CHECK_STATUS(a.put(text(98), 10), Status::ok);
      CHECK_STATUS(a.flush(soon()), Status::timed_out);
      CHECK(a.unflushed() == 1);
    }
    check_receives(receiver, sequence++, 10);
    CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
    CHECK_STATUS(send_text(a, 98, 10, soon()), Status::timed_out);
    CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
    std::thread sender([&, first = sequence] {
      CHECK_STATUS(send_text(a, first, 20), Status::ok);
      CHECK_STATUS(send_text(a, first + 1, 100'000), Status::ok);
    });
    check_receives(receiver, sequence++, 20);
    check_receives(receiver, sequence++, 100'000);
    sender.join();
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::timed_out);
  }
}

// Sender and receiver give up at arbitrary moments; what was sent arrives, and nothing else.
void sends_that_give_up_at_any_moment(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin}, kSmallBuffer);
  const int kCount = rounds(1200);
  const auto length = [](std::uint64_t i) {
    return i % 3 == 0 ? i * 7919 % 60'000 : i * 37 % 5000;
  };
  std::vector<std::uint64_t> sent;
  std::thread sender([&] {
    Random random(9);
    for (int i = 0; i < kCount; ++i) {
      const bool last = i == kCount - 1;
      const std::uint64_t choice = random.below(300'000);
      const Deadline deadline = last              ? hang()
                                : choice < 50'000 ? Deadline::immediate()
                                                  : Deadline::after(Nanoseconds(choice));
      const Status status = send_text(*ends.a, i, length(i), deadline);
      if (status == Status::ok) sent.push_back(i);
      CHECK(status == Status::ok || (status == Status::timed_out && !last));
    }
  });
  Receiver receiver(*ends.b);
  Random random(10);
  std::vector<std::uint64_t> received;
  const Deadline bound = hang();
  for (std::uint64_t i = 0; i < std::uint64_t(kCount);) {
    CHECK(!bound.passed());
    const Status status = receiver.receive(Deadline::after(random.below(200'000)));
    if (status == Status::timed_out) continue;
    CHECK_STATUS(status, Status::ok);
    while (!receiver.is(i, length(i))) CHECK(++i < std::uint64_t(kCount));
    received.push_back(i++);
  }
  sender.join();
  CHECK(sent == received);
  std::printf("%zu of %d messages were sent in time\n", sent.size(), kCount);
}

void wakes_in_both_directions(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin}, kSmallBuffer);
  const int kCount = rounds(1500);
  const auto length = [](int i) { return std::uint64_t(i) * 7919 % 40'000; };
  std::vector<std::thread> threads;
  for (StreamChannel* channel : {ends.a.get(), ends.b.get()}) {
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

// --- ends
// ------------------------------------------------------------------------------------------

void a_goodbye_is_the_end(Transport transport, Nanoseconds spin) {
  StreamEnds ends(transport, {.spin = spin});
  // What this end has not received does not harm what it sent.
  for (int i = 0; i < 20; ++i) CHECK_STATUS(send_text(*ends.a, i, 1000), Status::ok);
  for (int i = 0; i < 20; ++i) CHECK_STATUS(send_text(*ends.b, i, i * 100), Status::ok);
  CHECK(ends.a->peer_alive());
  ends.b->close();
  CHECK(ends.b->is_closed());
  CHECK(!ends.b->peer_alive());
  Receiver receiver(*ends.a);
  for (int i = 0; i < 20; ++i) check_receives(receiver, i, i * 100);
  for (int i = 0; i < 2; ++i) {
    CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_closed);
    CHECK_STATUS(receiver.receive(soon()), Status::peer_closed);
    CHECK_STATUS(receiver.receive(Deadline::immediate()), Status::peer_closed);
  }
  CHECK(!ends.a->peer_alive());
  Status status = Status::ok;
  for (int sent = 0; status == Status::ok; ++sent) {
    CHECK(sent < 10'000);
    status = send_text(*ends.a, 1, 1000);
  }
  CHECK_STATUS(status, Status::peer_closed);
}

// A sender whose peer is gone asks whether a goodbye lies behind what nobody has received yet.
void a_goodbye_waits_behind_messages() {
  // The end of a frame that looks like a goodbye: a payload ends as its header does.
  const auto add_likeness = [](Bytes& bytes) {
    add_header(bytes, 1, 8);
    add_header(bytes, 2, 0);
    bytes.push_back(std::byte{1});
  };
  const auto add_messages = [&](Bytes& bytes) {
    add_frame(bytes, 1, 100);
    add_frame(bytes, 2, 100'000, 0);
    add_likeness(bytes);
  };
  for (const bool goodbye : {false, true}) {
    HalfStream half;
    CHECK(!half.channel->goodbye_is_waiting());
    Bytes bytes;
    add_messages(bytes);
    if (goodbye) add_goodbye(bytes);
    half.write(bytes);
    CHECK(half.channel->goodbye_is_waiting() == goodbye);
    half.hang_up();
    CHECK(half.channel->goodbye_is_waiting() == goodbye);
    check_receives(half.receiver, 1, 100);
    CHECK(half.channel->goodbye_is_waiting() == goodbye);
  }
  // The same from the middle of a message, after each number of its bytes.
  for (const std::size_t begun : {8, 9, 20, 107, 108}) {
    for (const bool goodbye : {false, true}) {
      HalfStream half;
      Bytes bytes;
      add_messages(bytes);
      if (goodbye) add_goodbye(bytes);
      half.write(bytes.data(), begun);
      CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::timed_out);
      half.write(bytes.data() + begun, bytes.size() - begun);
      half.hang_up();
      CHECK(half.channel->goodbye_is_waiting() == goodbye);
      check_receives(half.receiver, 1, 100);
    }
  }
}

void an_end_without_goodbye_is_a_loss(Transport transport, Nanoseconds spin) {
  HalfStream half({.spin = spin}, transport);
  Bytes bytes;
  add_frame(bytes, 1, 100);
  half.write(bytes);
  half.hang_up();
  check_receives(half.receiver, 1, 100);
  CHECK_STATUS(half.receiver.receive(Deadline::never()), Status::peer_lost);
  CHECK_STATUS(half.receiver.receive(soon()), Status::peer_lost);
  CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::peer_lost);
  Status status = Status::ok;
  for (int sent = 0; status == Status::ok; ++sent) {
    CHECK(sent < 10'000);
    status = send_text(*half.channel, 1, 1000);
  }
  CHECK_STATUS(status, Status::peer_lost);
}

void an_end_in_a_frame_truncates() {
  Bytes bytes;
  add_frame(bytes, 1, 20);
  for (std::size_t length = 1; length < bytes.size(); ++length) {
    for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
      HalfStream half({.spin = spin});
      half.write(bytes.data(), length);
      if (length % 2 == 0)
        CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::timed_out);
      half.hang_up();
      CHECK_STATUS(half.receiver.receive(Deadline::never()), Status::truncated);
      CHECK_STATUS(half.receiver.receive(Deadline::immediate()), Status::truncated);
    }
  }
  HalfStream half;
  Bytes large;
  add_frame(large, 1, 100'000);
  half.write(large.data(), 50'000);
  half.hang_up();
  CHECK_STATUS(half.receiver.receive(hang()), Status::truncated);
}

void the_end_of_the_peer_wakes(Transport transport, bool says_goodbye) {
  StreamEnds ends(transport, {}, kSmallBuffer);
  const Status end = says_goodbye ? Status::peer_closed : Status::peer_lost;
  Sleeper receiving([&] {
    Receiver receiver(*ends.a);
    CHECK_STATUS(receiver.receive(Deadline::never()), end);
  });
  Sleeper sending([&] {
    const Status status = send_text(*ends.a, 1, 3'000'000);
    CHECK(status == Status::peer_closed || status == Status::peer_lost);
  });
  receiving.await_asleep();
  sending.await_asleep();
  if (says_goodbye) {
    ends.b->close();
  } else {
    ends.b.reset();
  }
}

// One thread sends and another receives while the peer goes: both look at what the other saw.
void both_directions_see_the_end() {
  for (int round = 0; round < rounds(400); ++round) {
    StreamEnds ends(Transport::local, {.spin = round % 2 == 0 ? 0 : kSpin});
    std::thread receiving([&] {
      Receiver receiver(*ends.a);
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_closed);
    });
    std::thread sending([&] {
      Status status = Status::ok;
      while (status == Status::ok) status = send_text(*ends.a, 1, 100, Deadline::never());
      CHECK(status == Status::peer_closed || status == Status::peer_lost);
    });
    ends.b->close();
    receiving.join();
    sending.join();
  }
}

void close_wakes_a_receiver(const Options& options, bool in_a_message, Deadline deadline) {
  HalfStream half(options);
  Bytes bytes;
  add_frame(bytes, 1, 100'000);
  if (in_a_message) half.write(bytes.data(), 30'000);
  const auto receive = [&] {
    Receiver receiver(*half.channel);
    CHECK_STATUS(receiver.receive(deadline), Status::closed);
  };
  Sleeper receiving(receive);
  receiving.await_asleep();
  Sleeper waiting_for_the_lock(receive);
  waiting_for_the_lock.await_asleep();
  half.channel->close();
  receiving.join();
  waiting_for_the_lock.join();
  CHECK_STATUS(half.receiver.receive(Deadline::never()), Status::closed);
  CHECK_STATUS(send_text(*half.channel, 1, 10), Status::closed);
  CHECK_STATUS(half.channel->send(text(1), 10, hang()), Status::closed);
  half.channel->close();
}

void close_wakes_a_sender(Transport transport, const Options& options) {
  HalfStream half(options, transport, kSmallBuffer);
  const auto send_one = [&] {
    CHECK_STATUS(send_text(*half.channel, 1, 3'000'000, Deadline::never()), Status::closed);
  };
  Sleeper sending(send_one);
  sending.await_asleep();
  Sleeper waiting_for_the_lock(send_one);
  waiting_for_the_lock.await_asleep();
  half.channel->close();
}

void close_wakes_a_flush() {
  HalfStream half({}, Transport::local, kSmallBuffer);
  Sleeper sending([&] {
    StreamChannel& channel = *half.channel;
    CHECK_STATUS(take(channel.sending, hang()), Status::ok);
    Status status = Status::ok;
    while (status == Status::ok) {
      while (channel.put(text(1), 1000) == Status::ok) {
      }
      status = channel.flush(Deadline::never());
    }
    CHECK_STATUS(status, Status::closed);
    CHECK(channel.unflushed() > 0);
    channel.sending.give();
  });
  sending.await_asleep();
  half.channel->close();
}

// A message given up is filled up when the channel closes, if the socket takes it.
void close_behind_a_given_up_message() {
  StreamEnds ends(Transport::local);
  std::size_t length = 1'000'000;
  CHECK_STATUS(send_text(*ends.a, 1, length, Deadline::immediate()), Status::timed_out);
  Receiver receiver(*ends.b);
  CHECK_STATUS(receiver.receive(Deadline::after(kMillisecond)), Status::timed_out);
  ends.a->close();
  const Status status = receiver.receive(Deadline::never());
  CHECK(status == Status::truncated || status == Status::peer_closed);
}

// A frame that try_send() began is given up like any other.
void close_behind_a_quick_way_that_began() {
  for (std::size_t length = 3001; length < 3400; length += 7) {
    StreamEnds ends(Transport::tcp, {}, kSmallBuffer);
    CHECK_STATUS(take(ends.a->sending, hang()), Status::ok);
    int sent = 0;
    while (ends.a->try_send(text(1), length) == Status::ok) ++sent;
    std::thread closing([&] { CHECK_STATUS(ends.a->close(hang()), Status::ok); });
    while (!ends.a->is_closed()) std::this_thread::yield();
    CHECK_STATUS(leave(*ends.a, ends.a->sending, ends.a->send(text(1), length, hang())),
                 Status::closed);
    Receiver receiver(*ends.b);
    while (sent-- > 0) check_receives(receiver, 1, length);
    CHECK_STATUS(receiver.receive(hang()), Status::peer_closed);
    closing.join();
  }
}

// The rest of a long frame has as long to pass as the close says.
void close_behind_a_long_frame(Transport transport, bool peer_sends_first) {
  constexpr std::size_t kLong = 3'000'000;
  for (const bool reads : {true, false}) {
    StreamEnds ends(transport, {}, kSmallBuffer);
    Sleeper sending(
        [&] { CHECK_STATUS(send_text(*ends.a, 1, kLong, Deadline::never()), Status::closed); });
    sending.await_asleep();
    Sleeper peer([&] {
      if (peer_sends_first) {
        const Status status = send_text(*ends.b, 1, kLong);
        CHECK(status == Status::ok || !reads);
      }
      if (!reads) return;
      while (!ends.a->is_closed()) std::this_thread::yield();  // or the frame would pass before it
      Receiver receiver(*ends.b);
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_closed);
    });
    if (peer_sends_first) peer.await_asleep();
    const Status status = ends.a->close(reads ? hang() : soon());
    if (reads) CHECK_STATUS(status, Status::ok);
    peer.join();
    if (!reads && transport == Transport::local) {
      Receiver receiver(*ends.b);
      CHECK_STATUS(receiver.receive(Deadline::never()), Status::truncated);
    }
  }
}

std::atomic<bool> stop_closing{false};

void a_signal_ends_the_wait_of_a_close() {
  stop_closing.store(false);
  StreamEnds ends(Transport::local,
                  {.interruption = Interruption(in_every_thread, [] { return stop_closing.load(); })},
                  kSmallBuffer);
  CHECK_STATUS(send_text(*ends.a, 1, 1'000'000, Deadline::immediate()), Status::timed_out);
  Sleeper closing(
      [&] { CHECK_STATUS(ends.a->close(Deadline::never()), Status::interrupted); });
  closing.await_asleep();
  stop_closing.store(true);
  closing.join();
  CHECK(ends.a->handle() == -1);
}

void close_at_any_moment(Transport transport, Nanoseconds spin) {
  const int kRounds = rounds(200);
  for (int round = 0; round < kRounds; ++round) {
    StreamEnds ends(transport, {.spin = spin});
    std::atomic<int> received{0};
    std::vector<std::thread> threads;
    for (StreamChannel* channel : {ends.a.get(), ends.b.get()}) {
      threads.emplace_back([&, channel] {
        Receiver receiver(*channel);
        Status status;
        while ((status = receiver.receive(Deadline::never())) == Status::ok) received.fetch_add(1);
        CHECK(status == Status::closed || status == Status::peer_closed);
      });
      threads.emplace_back([&, channel] {
        Status status = Status::ok;
        for (std::uint64_t i = 0; status == Status::ok; ++i)
          status = send_text(*channel, i, i * 7919 % 50'000);
        CHECK(status == Status::closed || status == Status::peer_closed);
      });
    }
    const Deadline bound = hang();
    while (received.load() < round % 50) {
      CHECK(!bound.passed());
      std::this_thread::yield();
    }
    CHECK_STATUS((round % 2 == 0 ? ends.a : ends.b)->close(hang()), Status::ok);
    for (std::thread& thread : threads) thread.join();
  }
}

void abandoning_says_nothing() {
  StreamEnds ends(Transport::local);
  const int parents_copy = duplicate(ends.b->handle());
  ends.b->abandon();
  CHECK(ends.b->is_closed());
  CHECK(ends.b->handle() == -1);
  CHECK(ends.a->peer_alive());
  Receiver receiver(*ends.a);
  CHECK_STATUS(receiver.receive(soon()), Status::timed_out);
  ::close(parents_copy);
  CHECK_STATUS(receiver.receive(Deadline::never()), Status::peer_lost);
}

// --- a hostile peer
// --------------------------------------------------------------------------------

constexpr std::uint64_t kLongest = 100'000;

void check_corrupt(const Bytes& bytes) {
  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    HalfStream half({.longest = kLongest, .spin = spin});
    Bytes before;
    add_frame(before, 1, 30);
    half.write(before);
    half.write(bytes);
    check_receives(half.receiver, 1, 30);
    CHECK_STATUS(half.receiver.receive(Deadline::never()), Status::corrupt);
    CHECK(half.channel->violation()[0] != '\0');
  }
}

void refuses_hostile_headers() {
  for (std::uint64_t kind = 0; kind < 256; ++kind) {
    for (const std::uint64_t length :
         {std::uint64_t{0}, std::uint64_t{1}, kLongest, kLongest + 1, std::uint64_t{1} << 32,
          std::uint64_t{1} << 55, (std::uint64_t{1} << 56) - 1}) {
      if (kind == 1 && length <= kLongest) continue;
      if (kind == 2 && length == 0) continue;
      Bytes bytes;
      add_header(bytes, kind, length);
      check_corrupt(bytes);
    }
  }
}

void refuses_flipped_bits() {
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{20}, kLongest}) {
    for (int bit = 0; bit < 64; ++bit) {
      const std::uint64_t header = (std::uint64_t{1} << 56 | length) ^ (std::uint64_t{1} << bit);
      const std::uint64_t kind = header >> 56;
      const std::uint64_t lie = header & ((std::uint64_t{1} << 56) - 1);
      if (kind == 1 && lie <= kLongest) continue;
      Bytes bytes;
      add_header(bytes, kind, lie);
      bytes.push_back(std::byte{1});
      check_corrupt(bytes);
    }
  }
}

void refuses_what_follows_a_goodbye() {
  for (const std::uint64_t kind : {0, 1, 2, 255}) {
    Bytes bytes;
    add_goodbye(bytes);
    add_header(bytes, kind, 0);
    bytes.push_back(std::byte{1});
    check_corrupt(bytes);
  }
}

void refuses_a_wrong_commit_byte() {
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{20}, std::uint64_t{5000},
                                     std::uint64_t{70'000}, kLongest}) {
    for (const int mark : {2, 3, 0x80, 0x81, 0xff}) {
      Bytes bytes;
      add_frame(bytes, 2, length, mark);
      check_corrupt(bytes);
    }
  }
}

void survives_random_bytes() {
  for (int seed = 0; seed < rounds(4000); ++seed) {
    Random random(seed);
    Bytes bytes;
    while (bytes.size() < 3000) {
      switch (random.below(16)) {
        case 0:
          add_header(bytes, random.below(4), random.next() >> (8 + random.below(56)));
          break;
        case 1:
          if (random.below(16) == 0) add_goodbye(bytes);
          break;
        default:
          add_frame(bytes, seed, random.below(random.below(8) == 0 ? 2000 : 50),
                    random.below(32) == 0 ? static_cast<int>(random.below(256))
                                          : static_cast<int>(random.below(2)));
      }
    }
    if (random.below(4) == 0) {
      for (int i = 0; i < 4; ++i)
        bytes[random.below(bytes.size())] ^= std::byte(1 << random.below(8));
    }
    HalfStream half({.longest = 1500, .spin = seed % 2 == 0 ? 0 : 1000});
    half.write(bytes);
    half.hang_up();
    Status status = Status::ok;
    for (int received = 0; status == Status::ok; ++received) {
      CHECK(received < 1000);
      status = half.receiver.receive(received % 2 == 0 ? hang() : Deadline::never());
      if (status == Status::ok) CHECK(half.receiver.length() <= 1500);
    }
    CHECK(status == Status::corrupt || status == Status::truncated ||
          status == Status::peer_closed || status == Status::peer_lost);
  }
}

// --- signals
// ---------------------------------------------------------------------------------------

std::atomic<bool> signalled{false};

bool was_signalled() { return signalled.exchange(false); }
constexpr Interruption kSignals(in_every_thread, was_signalled);

void interrupt(Sleeper& sleeper) {
  sleeper.await_asleep();
  signalled.store(true);
  // The thread may not sleep quite yet; then the signal says nothing to it.
  const Deadline bound = hang();
  while (signalled.load()) {
    CHECK(!bound.passed());
    CHECK(::pthread_kill(sleeper.native_handle(), SIGUSR1) == 0);
    sleeper.await_asleep();
  }
  sleeper.join();
}

void a_signal_interrupts(Nanoseconds spin) {
  StreamEnds ends(Transport::local, {.spin = spin, .interruption = kSignals}, kSmallBuffer);
  Receiver receiver(*ends.a);
  for (const Deadline deadline : {Deadline::never(), hang()}) {
    Sleeper receiving([&] { CHECK_STATUS(receiver.receive(deadline), Status::interrupted); });
    interrupt(receiving);
    Sleeper sending(
        [&] { CHECK_STATUS(send_text(*ends.a, 1, 3'000'000, deadline), Status::interrupted); });
    interrupt(sending);
    std::thread sender([&] { CHECK_STATUS(send_text(*ends.a, 2, 100), Status::ok); });
    Receiver other(*ends.b);
    check_receives(other, 2, 100);
    sender.join();
    // A receive that is interrupted in a message goes on later.
    CHECK_STATUS(send_text(*ends.b, 3, 1000), Status::ok);
    check_receives(receiver, 3, 1000);
  }
}

}  // namespace

int main() {
  text(0);
  struct sigaction action{};
  action.sa_handler = [](int) {};
  CHECK(::sigaction(SIGUSR1, &action, nullptr) == 0);

  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    for (const Transport transport : kTransports) {
      every_length(transport, spin);
      ping_pong(transport, spin);
      several_megabytes(transport, spin);
      dribbled(transport, spin);
    }
    byte_by_byte(spin);
  }
  split_at_every_byte();
  long_frames_split();
  many_frames_in_one_read();
  what_is_sent_is_what_is_documented();
  too_large_leaves_the_channel_usable();

  for (const Transport transport : kTransports) {
    a_batch_goes_out_when_flushed(transport);
    a_flush_that_gives_up(transport);
    for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
      a_send_that_gave_up_delivers_nothing(transport, spin);
      sends_that_give_up_at_any_moment(transport, spin);
      wakes_in_both_directions(transport, spin);
      a_goodbye_is_the_end(transport, spin);
      an_end_without_goodbye_is_a_loss(transport, spin);
      close_wakes_a_sender(transport, {.spin = spin});
      close_at_any_moment(transport, spin);
    }
    the_end_of_the_peer_wakes(transport, false);
    the_end_of_the_peer_wakes(transport, true);
  }
  a_flush_that_gives_up_in_a_header();
  an_empty_batch_leaves_nothing_unflushed();
  an_end_in_a_frame_truncates();
  a_goodbye_waits_behind_messages();
  both_directions_see_the_end();
  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) {
    for (const bool in_a_message : {false, true}) {
      close_wakes_a_receiver({.spin = spin}, in_a_message, Deadline::never());
      close_wakes_a_receiver({.spin = spin}, in_a_message, hang());
    }
  }
  close_wakes_a_flush();
  close_behind_a_given_up_message();
  close_behind_a_quick_way_that_began();
  for (const Transport transport : {Transport::local, Transport::tcp}) {
    close_behind_a_long_frame(transport, false);
    close_behind_a_long_frame(transport, true);
  }
  a_signal_ends_the_wait_of_a_close();
  abandoning_says_nothing();

  refuses_hostile_headers();
  refuses_flipped_bits();
  refuses_what_follows_a_goodbye();
  refuses_a_wrong_commit_byte();
  survives_random_bytes();

  for (const Nanoseconds spin : {Nanoseconds{0}, kSpin}) a_signal_interrupts(spin);
}
