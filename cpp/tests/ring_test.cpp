#include "ring.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "ends.hpp"

using namespace proclink;
using namespace proclink::test;

namespace {

constexpr std::uint64_t kCapacity = Segment::kSmallestRing;
constexpr std::uint64_t kLongestAccepted = 1 << 20;

struct Ring {
  std::shared_ptr<Segment> segment = make_segment(kCapacity);
  RingMemory memory = segment->ring(0);
  RingProducer producer{memory};
  RingConsumer consumer{memory, kLongestAccepted};
};

void write(RingProducer& producer, std::uint64_t sequence, std::uint64_t length) {
  CHECK(producer.has_room(round_to_line(kRecordHeader + length)));
  producer.begin(RecordKind::data, length);
  std::memcpy(producer.payload(), text(sequence), length);
  producer.advance(round_to_line(kRecordHeader + length));
  CHECK(producer.publish() == PeerWas::awake);
}

void read(RingConsumer& consumer, std::uint64_t sequence, std::uint64_t length) {
  Record record;
  CHECK(consumer.available() > 0 || consumer.refresh());
  CHECK(consumer.header(record));
  CHECK(record.kind == RecordKind::data && record.length == length);
  CHECK(consumer.available() >= round_to_line(kRecordHeader + length));
  CHECK(is_text(consumer.payload(), length, sequence));
  CHECK(consumer.release(round_to_line(kRecordHeader + length)) == PeerWas::awake);
}

void rounds_to_lines() {
  CHECK(round_to_line(0) == 0);
  CHECK(round_to_line(1) == kLine);
  CHECK(round_to_line(kLine) == kLine);
  CHECK(round_to_line(kLine + 1) == 2 * kLine);
}

void carries_every_length_through_every_line() {
  // Two records more than fit the ring: each length also comes to lie across its end.
  Ring ring;
  for (std::uint64_t length = 0; length <= 2 * kLine; ++length) {
    const std::uint64_t lines = round_to_line(kRecordHeader + length) / kLine;
    for (std::uint64_t i = 0; i < kCapacity / kLine / lines + 2; ++i) {
      write(ring.producer, i, length);
      read(ring.consumer, i, length);
    }
  }
  CHECK(ring.producer.position() > 4 * kCapacity);
}

void wraps_in_one_piece() {
  for (const std::uint64_t length : {std::uint64_t{48}, std::uint64_t{49}, std::uint64_t{112},
                                     std::uint64_t{10'000}, kCapacity / 2 - kRecordHeader}) {
    Ring ring;
    std::uint64_t sequence = 0;
    while (ring.producer.position() < kCapacity - kLine) {
      write(ring.producer, sequence, 0);
      read(ring.consumer, sequence++, 0);
    }
    write(ring.producer, sequence, length);
    if (length > kLine - kRecordHeader) {
      // What lies behind the end is found at the start.
      CHECK(std::memcmp(ring.memory.data, text(sequence) + kLine - kRecordHeader,
                        length - (kLine - kRecordHeader)) == 0);
    }
    read(ring.consumer, sequence, length);
  }
}

void is_full_at_its_capacity() {
  Ring ring;
  std::uint64_t written = 0;
  std::uint64_t taken = 0;
  for (int round = 0; round < 3; ++round) {
    while (ring.producer.has_room(kLine)) write(ring.producer, written++, 0);
    CHECK(written - taken == kCapacity / kLine);
    CHECK(ring.producer.room() == 0);
    CHECK(!ring.producer.corrupt());
    read(ring.consumer, taken++, 0);
    CHECK(ring.producer.has_room(kLine));
    CHECK(!ring.producer.has_room(kLine + 1));
    write(ring.producer, written++, 0);
    CHECK(ring.producer.unread() == kCapacity);
    while (ring.consumer.available() > 0 || ring.consumer.refresh())
      read(ring.consumer, taken++, 0);
    CHECK(written == taken);
    CHECK(ring.producer.room() == kCapacity);
    CHECK(ring.producer.unread() == 0);
  }
}

// Room is told in groups, but never when the producer could miss it.
void tells_of_room_in_groups() {
  Ring ring;
  const auto told = [&] { return ring.memory.words->read.load(); };
  constexpr std::uint64_t kRecords = 3 * kToldLater / kLine;
  for (std::uint64_t i = 0; i < kRecords; ++i) write(ring.producer, i, 0);
  CHECK(ring.consumer.refresh());
  for (std::uint64_t i = 0; i < kRecords; ++i) {
    read(ring.consumer, i, 0);
    const std::uint64_t read = (i + 1) * kLine;
    CHECK(told() <= read);
    CHECK(read - told() < kToldLater);
    CHECK((told() == read) == !ring.consumer.owes_room());
  }
  CHECK(told() == ring.producer.position());  // with the last one

  // Whoever waits for room is told at once, and rung.
  for (std::uint64_t i = 0; i < 3; ++i) write(ring.producer, i, 0);
  CHECK(ring.consumer.refresh());
  read(ring.consumer, 0, 0);
  CHECK(ring.consumer.owes_room());
  ring.memory.words->producer_state.store(kAsleep);
  CHECK(ring.consumer.release(kLine) == PeerWas::asleep);
  CHECK(!ring.consumer.owes_room());

  // And so is whoever is about to, when this end will wait itself.
  for (std::uint64_t i = 0; i < 3; ++i) write(ring.producer, i, 0);
  CHECK(ring.consumer.refresh());
  CHECK(ring.consumer.release(kLine) == PeerWas::awake);
  CHECK(ring.consumer.owes_room());
  ring.memory.words->producer_state.store(kAsleep);
  CHECK(ring.consumer.tell() == PeerWas::asleep);
  CHECK(!ring.consumer.owes_room());
}

void shows_nothing_before_it_is_published() {
  Ring ring;
  ring.producer.begin(RecordKind::data, 0);
  ring.producer.advance(kLine);
  CHECK(!ring.consumer.refresh());
  CHECK(ring.producer.publish() == PeerWas::awake);
  CHECK(ring.consumer.refresh());
  CHECK(ring.consumer.available() == kLine);
  CHECK(!ring.consumer.refresh());
}

void bounds_what_goes_through_at_a_time() {
  for (std::uint64_t capacity = Segment::kSmallestRing; capacity <= Segment::kLargestRing;
       capacity *= 2) {
    const RingMemory ring{nullptr, nullptr, capacity};
    for (const std::uint64_t length :
         {kShortestStep + 1, 2 * kShortestStep, 2 * kLongestStep, ring.longest_record()}) {
      const std::uint64_t bytes = round_to_line(kRecordHeader + length);
      const std::uint64_t step = RingMemory::publish_step(bytes);
      CHECK(step % kLine == 0);
      CHECK(step >= kShortestStep && step <= kLongestStep);
      CHECK(step < bytes);  // some overlap
      CHECK(step <= capacity / 4);
      // No third step before the longest is reached.
      CHECK(2 * step >= bytes || step == kLongestStep);
    }
    CHECK(ring.longest_in_batch() <= ring.longest_record());
    CHECK(ring.longest_in_batch() >= kBatchStep);
    CHECK(ring.stream_piece() % kLine == 0);
    CHECK(ring.stream_piece() <= capacity / 4);
    CHECK(ring.stream_piece() <= kStreamPiece);
  }
}

void publishes_in_steps() {
  Ring ring;
  constexpr std::uint64_t kLength = 10'000;
  ring.producer.begin(RecordKind::data, kLength);
  std::byte* const payload = ring.producer.payload();
  Record record;
  std::uint64_t published = 0;
  std::uint64_t seen = 0;
  const std::uint64_t total = round_to_line(kRecordHeader + kLength);
  while (published < total) {
    const std::uint64_t step = std::min(RingMemory::publish_step(total), total - published);
    const std::uint64_t from = published == 0 ? 0 : published - kRecordHeader;
    const std::uint64_t to = std::min(kLength, published + step - kRecordHeader);
    std::memcpy(payload + from, text(5) + from, to - from);
    ring.producer.advance(step);
    CHECK(ring.producer.publish() == PeerWas::awake);
    published += step;

    CHECK(ring.consumer.refresh());
    CHECK(ring.consumer.available() == published);
    CHECK(ring.consumer.header(record));
    CHECK(record.length == kLength);
    CHECK(std::memcmp(ring.consumer.at_offset(kRecordHeader + seen), text(5) + seen, to - seen) ==
          0);
    seen = to;
  }
  CHECK(seen == kLength);
  CHECK(ring.consumer.release(total) == PeerWas::awake);
  CHECK(ring.producer.room() == kCapacity);
}

void wakes_a_sleeper_once() {
  Ring ring;
  ring.memory.words->consumer_state.store(kAsleep);
  CHECK(ring.producer.publish() == PeerWas::asleep);
  CHECK(ring.producer.publish() == PeerWas::awake);
  CHECK(!ring.producer.peer_is_closed());
  ring.memory.words->consumer_state.store(kClosed);
  CHECK(ring.producer.publish() == PeerWas::closed);
  CHECK(ring.producer.publish() == PeerWas::closed);
  CHECK(ring.producer.peer_is_closed());

  ring.memory.words->producer_state.store(kAsleep);
  CHECK(ring.consumer.release(0) == PeerWas::asleep);
  CHECK(ring.consumer.release(0) == PeerWas::awake);
  ring.memory.words->producer_state.store(kClosed);
  CHECK(ring.consumer.release(0) == PeerWas::closed);
  CHECK(ring.consumer.peer_is_closed());

  // No state at all is taken for awake: nothing is rung, nothing ends.
  for (const std::uint32_t state : {3u, 0x100u, 0x80000000u, 0xffffffffu}) {
    ring.memory.words->consumer_state.store(state);
    CHECK(ring.producer.publish() == PeerWas::awake);
    CHECK(ring.memory.words->consumer_state.load() == state);
  }
}

// --- a hostile peer
// --------------------------------------------------------------------------------

// The ring after `written` bytes went in and `read` of them out, in records of one line.
struct UsedRing : Ring {
  UsedRing(std::uint64_t written, std::uint64_t taken) {
    for (std::uint64_t position = 0; position < written; position += kLine) {
      write(producer, position, 0);
      if (position < taken) read(consumer, position, 0);
    }
    static_cast<void>(consumer.refresh());
    static_cast<void>(producer.room());
    CHECK(producer.position() == written);
    CHECK(producer.unread() == written - taken);
    CHECK(consumer.available() == written - taken);
  }
};

constexpr std::uint64_t kTop = std::numeric_limits<std::uint64_t>::max();

void refuses_a_written_position(std::uint64_t written, std::uint64_t taken, std::uint64_t word) {
  UsedRing ring(written, taken);
  ring.memory.words->written.store(word);
  CHECK(!ring.consumer.refresh());
  CHECK(ring.consumer.corrupt());
  CHECK(ring.consumer.violation()[0] != '\0');
  CHECK(ring.consumer.available() == written - taken);  // what was believed before stays
  ring.memory.words->written.store(written);
  static_cast<void>(ring.consumer.refresh());
  CHECK(ring.consumer.corrupt());
}

void refuses_hostile_written_positions() {
  constexpr std::uint64_t kWritten = 3 * kCapacity / 2;
  for (const std::uint64_t taken : {kWritten, kWritten - kLine, kWritten - kCapacity}) {
    for (const std::uint64_t back : {kLine, 2 * kLine, kCapacity, kWritten})
      refuses_a_written_position(kWritten, taken, kWritten - back);
    for (std::uint64_t inside = 1; inside < kLine; ++inside) {
      refuses_a_written_position(kWritten, taken, kWritten + inside);
      refuses_a_written_position(kWritten, taken, kWritten - inside);
    }
    for (const std::uint64_t beyond : {kLine, 2 * kLine, kCapacity, 16 * kCapacity})
      refuses_a_written_position(kWritten, taken, taken + kCapacity + beyond);
    for (int bit = 20; bit < 64; ++bit)
      refuses_a_written_position(kWritten, taken, kWritten + (std::uint64_t{1} << bit));
    refuses_a_written_position(kWritten, taken, kTop);
    refuses_a_written_position(kWritten, taken, kTop - (kLine - 1));

    UsedRing ring(kWritten, taken);
    ring.memory.words->written.store(taken + kCapacity);  // full is the most there can be
    CHECK(ring.consumer.refresh() == (taken + kCapacity != kWritten));
    CHECK(!ring.consumer.corrupt());
  }
}

void refuses_a_read_position(std::uint64_t written, std::uint64_t taken, std::uint64_t word) {
  UsedRing ring(written, taken);
  ring.memory.words->read.store(word);
  CHECK(ring.producer.room() == kCapacity - (written - taken));
  CHECK(ring.producer.corrupt());
  CHECK(ring.producer.unread() == written - taken);
  CHECK(!ring.producer.has_room(kCapacity - (written - taken) + 1));
  ring.memory.words->read.store(written);
  static_cast<void>(ring.producer.room());
  CHECK(ring.producer.corrupt());
}

void refuses_hostile_read_positions() {
  constexpr std::uint64_t kWritten = 3 * kCapacity / 2;
  for (const std::uint64_t taken : {kWritten, kWritten - kLine, kWritten - kCapacity}) {
    for (const std::uint64_t back : {kLine, 2 * kLine, taken})
      refuses_a_read_position(kWritten, taken, taken - back);
    for (std::uint64_t inside = 1; inside < kLine; ++inside) {
      refuses_a_read_position(kWritten, taken, taken + inside);
      refuses_a_read_position(kWritten, taken, taken - inside);
    }
    for (const std::uint64_t beyond : {kLine, 2 * kLine, kCapacity, 16 * kCapacity})
      refuses_a_read_position(kWritten, taken, kWritten + beyond);
    for (int bit = 20; bit < 64; ++bit)
      refuses_a_read_position(kWritten, taken, kWritten + (std::uint64_t{1} << bit));
    refuses_a_read_position(kWritten, taken, kTop);
    refuses_a_read_position(kWritten, taken, kTop - (kLine - 1));
  }
}

// What a header may say, written down once more.
bool may_be_believed(std::uint64_t header) {
  const std::uint64_t kind = header >> 56;
  const std::uint64_t length = header & 0x00ff'ffff'ffff'ffff;
  const std::uint64_t longest_record = kCapacity / 2 - 16;
  if (kind == 1) return length <= longest_record;
  if (kind == 2) return length > longest_record && length <= kLongestAccepted;
  return (kind == 3 || kind == 4) && length == 0;
}

std::uint64_t make_header(std::uint64_t kind, std::uint64_t length) { return kind << 56 | length; }

void check_header(std::uint64_t header) {
  static const std::shared_ptr<Segment> segment = make_segment(kCapacity);
  const RingMemory memory = segment->ring(0);
  memory.words->read.store(0);
  memory.words->written.store(kLine);
  std::memcpy(memory.data, &header, sizeof header);
  RingConsumer consumer(memory, kLongestAccepted);
  CHECK(consumer.refresh());
  Record record;
  const bool believed = consumer.header(record);
  CHECK(believed == may_be_believed(header));
  CHECK(consumer.corrupt() == !believed);
  CHECK((consumer.violation()[0] != '\0') == !believed);
  if (believed) {
    CHECK(make_header(static_cast<std::uint64_t>(record.kind), record.length) == header);
  }
}

void refuses_hostile_headers() {
  const std::uint64_t longest_record = kCapacity / 2 - kRecordHeader;
  const std::uint64_t lengths[] = {0,
                                   1,
                                   kLine,
                                   longest_record - 1,
                                   longest_record,
                                   longest_record + 1,
                                   kCapacity,
                                   kLongestAccepted - 1,
                                   kLongestAccepted,
                                   kLongestAccepted + 1,
                                   std::uint64_t{1} << 32,
                                   std::uint64_t{1} << 55,
                                   (std::uint64_t{1} << 56) - 1};
  for (std::uint64_t kind = 0; kind < 256; ++kind) {
    for (const std::uint64_t length : lengths) {
      const std::uint64_t header = make_header(kind, length);
      check_header(header);
      if (!may_be_believed(header)) continue;
      for (int bit = 0; bit < 64; ++bit) check_header(header ^ (std::uint64_t{1} << bit));
    }
  }
  check_header(kTop);
}

void refuses_a_record_above_a_small_limit() {
  const std::shared_ptr<Segment> segment = make_segment(kCapacity);
  RingProducer producer(segment->ring(0));
  write(producer, 0, 100);
  Record record;
  RingConsumer consumer(segment->ring(0), 99);
  CHECK(consumer.refresh());
  CHECK(!consumer.header(record));
  CHECK(consumer.corrupt());
  RingConsumer generous(segment->ring(0), 100);
  CHECK(generous.refresh());
  CHECK(generous.header(record));
}

}  // namespace

int main() {
  rounds_to_lines();
  carries_every_length_through_every_line();
  wraps_in_one_piece();
  is_full_at_its_capacity();
  tells_of_room_in_groups();
  shows_nothing_before_it_is_published();
  bounds_what_goes_through_at_a_time();
  publishes_in_steps();
  wakes_a_sleeper_once();
  refuses_hostile_written_positions();
  refuses_hostile_read_positions();
  refuses_hostile_headers();
  refuses_a_record_above_a_small_limit();
}
