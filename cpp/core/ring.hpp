// A single-producer, single-consumer ring of records in memory shared with a peer that may be
// hostile.
//
// Ideas: cached peer index from Rigtorp's SPSCQueue; copy-then-validate from ipcz and Perfetto.
//
// Rules that every line here keeps:
//  - one's own position lives in private memory and is only ever stored to shared memory;
//  - the peer's position is loaded once, validated, and cached in private memory;
//  - a record's header is loaded once and validated before it is believed;
//  - a violation is reported as corrupt and nothing outside the ring is touched.
//
// Layout of one ring, little-endian, offsets in bytes (docs/wire-format.md):
//     0  written         u64  producer: bytes ever published
//   128  read            u64  consumer: bytes ever given back
//   256  consumer_state  u32  0 awake, 1 asleep (wants data), 2 closed
//   384  producer_state  u32  0 awake, 1 asleep (wants space), 2 closed
// the next page  data    capacity bytes, mapped twice in a row so that every record is contiguous
//
// A record starts on a 64-byte boundary: 8 bytes header (kind << 56 | payload length), 8 bytes
// unused, payload. So the header shares its cache line with 48 bytes of payload, and payloads are
// 16-byte aligned. A long record is published while it is being copied in, so that the consumer
// copies out at the same time. A record longer than half the ring is a stream: it flows through the
// ring as space allows, and a commit or abort record behind it says whether it counts.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace proclink {

constexpr std::size_t kLine = 64;
constexpr std::size_t kRecordHeader = 16;

// How much goes through a ring at a time, in bytes. Each answers a question of its own, so they are
// five numbers, and RingMemory bounds by its ring what could be too much for it
// (docs/decisions/0004).
//
// A record is published in halves, so that the two copies overlap, but a step is not shorter than
// kShortestStep, so that the publication does not show, and not longer than kLongestStep, behind
// which overlap gains nothing more.
constexpr std::size_t kShortestStep = 4 * 1024;
constexpr std::size_t kLongestStep = 16 * 1024;
// How much of a stream is copied before it is published, or given back.
constexpr std::size_t kStreamPiece = 32 * 1024;
// The longest message for a batch. A longer one is worth a call without the GIL and its own steps.
constexpr std::size_t kLongestInBatch = 16 * 1024;
// A batch is published whenever that much more of it is there.
constexpr std::size_t kBatchStep = 4 * 1024;
// How much room the consumer gives back before it tells the producer, as long as there is more to
// read and room for more to write: there is a barrier in telling. A producer that looks whether its
// peer moves looks less often than that (ShmChannel::kLivenessStep).
constexpr std::size_t kToldLater = 4 * 1024;

constexpr std::uint64_t round_to_line(std::uint64_t bytes) {
  return (bytes + (kLine - 1)) & ~std::uint64_t{kLine - 1};
}

enum class RecordKind : std::uint8_t { data = 1, stream = 2, commit = 3, abort = 4 };

enum EndState : std::uint32_t { kAwake = 0, kAsleep = 1, kClosed = 2 };

struct RingWords {
  alignas(128) std::atomic<std::uint64_t> written;
  alignas(128) std::atomic<std::uint64_t> read;
  alignas(128) std::atomic<std::uint32_t> consumer_state;
  alignas(128) std::atomic<std::uint32_t> producer_state;
};
static_assert(offsetof(RingWords, read) == 128);
static_assert(offsetof(RingWords, consumer_state) == 256);
static_assert(offsetof(RingWords, producer_state) == 384);
static_assert(sizeof(RingWords) <= 4096);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// One ring as this process sees it.
struct RingMemory {
  RingWords* words = nullptr;
  std::byte* data = nullptr;
  std::uint64_t capacity = 0;  // bytes, a power of two

  std::byte* at(std::uint64_t position) const { return data + (position & (capacity - 1)); }
  // The longest payload sent as one record; anything longer is streamed.
  std::uint64_t longest_record() const { return capacity / 2 - kRecordHeader; }
  // A step of a record of `bytes`, header and padding included. A multiple of the line.
  static std::uint64_t publish_step(std::uint64_t bytes) {
    return std::clamp<std::uint64_t>(round_to_line(bytes / 2), kShortestStep, kLongestStep);
  }
  // While one quarter is copied in, another is copied out, and neither end waits for the other yet.
  std::uint64_t stream_piece() const { return std::min<std::uint64_t>(kStreamPiece, capacity / 4); }
  // What a batch takes is a record.
  std::uint64_t longest_in_batch() const {
    return std::min<std::uint64_t>(kLongestInBatch, longest_record());
  }
};

inline void prefetch_for_write([[maybe_unused]] const void* line) {
#if defined(__GNUC__) && defined(__x86_64__)
  // Every 64-bit x86 takes it; the compiler's builtin would only fetch for reading.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(line)));
#elif defined(__GNUC__)
  __builtin_prefetch(line, 1);
#elif defined(_M_X64)
  _m_prefetchw(const_cast<void*>(line));
#endif
}

// What the peer was doing when this end published or gave back.
enum class PeerWas : std::uint8_t { awake, asleep, closed };

// Takes the flag of a sleeping peer down: `asleep` says that this caller took it and has to ring.
//
// Partner: the sleeper raises the flag (seq_cst) and then looks at the position again (seq_cst);
// the caller has stored the position (seq_cst) and then looks at the flag here (seq_cst). In the
// one total order of those four, either the sleeper sees the position or the caller the flag.
inline PeerWas take_down(std::atomic<std::uint32_t>& state) {
  std::uint32_t seen = state.load(std::memory_order_seq_cst);
  if (seen == kAwake) [[likely]]
    return PeerWas::awake;
  if (seen == kAsleep && state.compare_exchange_strong(seen, kAwake, std::memory_order_seq_cst))
    return PeerWas::asleep;
  return seen == kClosed ? PeerWas::closed : PeerWas::awake;
}

class RingProducer {
 public:
  explicit RingProducer(const RingMemory& memory) : ring_(memory) {}

  const RingMemory& ring() const { return ring_; }
  std::uint64_t position() const { return written_; }
  bool corrupt() const { return corrupt_; }

  // True when `bytes` fit now.
  bool has_room(std::uint64_t bytes) {
    if (ring_.capacity - (written_ - read_) >= bytes) [[likely]]
      return true;
    refresh();
    return ring_.capacity - (written_ - read_) >= bytes;
  }

  // Bytes free after a fresh look.
  std::uint64_t room() {
    refresh();
    return ring_.capacity - (written_ - read_);
  }

  // Writes a header at the current position. The caller has checked that a line is free.
  void begin(RecordKind kind, std::uint64_t length) {
    const std::uint64_t header = (std::uint64_t{static_cast<std::uint8_t>(kind)} << 56) | length;
    reinterpret_cast<std::atomic<std::uint64_t>*>(ring_.at(written_))
        ->store(header, std::memory_order_relaxed);
  }

  std::byte* payload() const { return ring_.at(written_) + kRecordHeader; }
  std::byte* at_offset(std::uint64_t bytes) const { return ring_.at(written_ + bytes); }

  void advance(std::uint64_t bytes) { written_ += bytes; }

  // Makes everything up to the current position visible. `asleep`: the caller rings the consumer.
  // Partner of the store: the load in RingConsumer::refresh().
  [[nodiscard]] PeerWas publish() {
    ring_.words->written.store(written_, std::memory_order_seq_cst);
    return take_down(ring_.words->consumer_state);
  }

  bool peer_is_closed() const {
    return ring_.words->consumer_state.load(std::memory_order_relaxed) == kClosed;
  }

  // Fetches the line of the next record for writing. The consumer's core still has it from the lap
  // before; asking now, instead of with the next send, takes that off the way of the next message.
  void prefetch_next() const { prefetch_for_write(ring_.at(written_)); }

  // Bytes the consumer had not given back when last looked at.
  std::uint64_t unread() const { return written_ - read_; }

 private:
  void refresh() {
    // seq_cst: this is also the sleeping producer's second look (see take_down). Partner: the store
    // in RingConsumer::release(), after which the space may be overwritten.
    const std::uint64_t read = ring_.words->read.load(std::memory_order_seq_cst);
    if (read == read_) return;
    // Neither back, nor beyond what was written, nor inside a line.
    if (read - read_ > written_ - read_ || (read & (kLine - 1)) != 0) {
      corrupt_ = true;
      return;
    }
    read_ = read;
  }

  RingMemory ring_;
  std::uint64_t written_ = 0;  // private; shared memory only ever receives it
  std::uint64_t read_ = 0;     // the consumer's position, as last validated
  bool corrupt_ = false;
};

struct Record {
  RecordKind kind = RecordKind::data;
  std::uint64_t length = 0;  // payload bytes
};

class RingConsumer {
 public:
  RingConsumer(const RingMemory& memory, std::uint64_t max_message)
      : ring_(memory), max_message_(max_message) {}

  const RingMemory& ring() const { return ring_; }
  bool corrupt() const { return corrupt_; }
  const char* violation() const { return violation_; }

  // Published bytes not yet given back, from the cache.
  std::uint64_t available() const { return written_ - read_; }

  // True when more was published since the last look. seq_cst: also the sleeping consumer's second
  // look (see take_down). Partner: the store in RingProducer::publish().
  bool refresh() {
    const std::uint64_t written = ring_.words->written.load(std::memory_order_seq_cst);
    if (written == written_) return false;
    if (written - written_ > ring_.capacity - (written_ - read_) || (written & (kLine - 1)) != 0) {
      fail("the peer's position is outside the ring");
      return false;
    }
    written_ = written;
    // A producer that is short of room, or soon may be, is told at once.
    told_later_ = written - told_ <= ring_.capacity / 2 ? kToldLater : 0;
    return true;
  }

  // Loads and validates the header at the current position. The caller has checked available().
  bool header(Record& record) {
    if (corrupt_) [[unlikely]]
      return false;
    const std::uint64_t word = reinterpret_cast<const std::atomic<std::uint64_t>*>(ring_.at(read_))
                                   ->load(std::memory_order_relaxed);
    record.kind = static_cast<RecordKind>(word >> 56);
    record.length = word & ((std::uint64_t{1} << 56) - 1);
    switch (record.kind) {
      case RecordKind::data:
        if (record.length <= ring_.longest_record() && record.length <= max_message_) [[likely]]
          return true;
        return fail("a record is longer than agreed");
      case RecordKind::stream:
        if (record.length > ring_.longest_record() && record.length <= max_message_) return true;
        return fail("a streamed message is not of the agreed length");
      case RecordKind::commit:
      case RecordKind::abort:
        if (record.length == 0) return true;
        return fail("a mark carries a payload");
    }
    return fail("a record is of an unknown kind");
  }

  const std::byte* payload() const { return ring_.at(read_) + kRecordHeader; }
  const std::byte* at_offset(std::uint64_t bytes) const { return ring_.at(read_ + bytes); }

  // Gives `bytes` back to the producer. `asleep`: the caller rings it. While more records are there,
  // and room is not short, the producer is told of several at once.
  [[nodiscard]] PeerWas release(std::uint64_t bytes) {
    read_ += bytes;
    // relaxed: a flag that goes up just now is seen with the next record, or by tell() before this
    // end waits itself.
    if (written_ != read_ && read_ - told_ < told_later_ &&
        ring_.words->producer_state.load(std::memory_order_relaxed) == kAwake) [[likely]]
      return PeerWas::awake;
    return tell();
  }

  // Tells the producer all that was given back. Partner of the store: the load in
  // RingProducer::refresh(); our reads of the payload come before it.
  [[nodiscard]] PeerWas tell() {
    told_ = read_;
    ring_.words->read.store(read_, std::memory_order_seq_cst);
    return take_down(ring_.words->producer_state);
  }
  bool owes_room() const { return told_ != read_; }

  bool peer_is_closed() const {
    return ring_.words->producer_state.load(std::memory_order_relaxed) == kClosed;
  }

  bool fail(const char* violation) {
    violation_ = violation;
    corrupt_ = true;
    return false;
  }

 private:
  RingMemory ring_;
  std::uint64_t max_message_;
  std::uint64_t read_ = 0;     // private; shared memory only ever receives it
  std::uint64_t told_ = 0;     // what it received last
  std::uint64_t told_later_ = 0;
  std::uint64_t written_ = 0;  // the producer's position, as last validated
  bool corrupt_ = false;
  const char* violation_ = "";
};

}  // namespace proclink
