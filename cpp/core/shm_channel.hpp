// A channel through shared memory: one ring and two doorbells a direction.
//
// A method takes part of one direction only; the caller holds `sending` or `receiving` around it.
// No method blocks unless it takes a Deadline.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "directions.hpp"
#include "doorbell.hpp"
#include "interruption.hpp"
#include "limits.hpp"
#include "peer_watch.hpp"
#include "ring.hpp"
#include "segment.hpp"
#include "spin.hpp"
#include "status.hpp"

namespace proclink {

// Two doorbells an end and not one: a thread that waits for data and one that waits for space may
// sleep at the same time, and whichever drained a common bell would swallow the other's wake.
struct Doorbells {
  Doorbell data;   // rung when there is something to receive
  Doorbell space;  // rung when there is room to send
};

class ShmChannel : public Directions {
 public:
  static constexpr bool kInPlace = true;

  ShmChannel(std::shared_ptr<Segment> segment, bool creator, Doorbells own, Doorbells peer,
             PeerWatch watch, const Limits& limits, Interruption interruption);

  // --- sending -----------------------------------------------------------------------------------

  // Sends if there is room now; timed_out if not, or if the message has to be streamed.
  Status try_send(const void* message, std::size_t length) {
    const std::uint64_t bytes = round_to_line(kRecordHeader + length);
    if (length >= try_below_.load(std::memory_order_relaxed) || mark_owed_) [[unlikely]]
      return why_not_try(length);
    if (!tx_.has_room(bytes)) [[unlikely]]
      return tx_.corrupt() ? corrupt("the peer's position is outside the ring") : Status::timed_out;
    return write_record(message, length, bytes);
  }

  // Sends, waiting for room. After anything but ok, nothing of the message will be delivered.
  Status send(const void* message, std::size_t length, Deadline deadline);

  // Writes without publishing, for a batch. timed_out when it does not fit now, or is too long for
  // a batch.
  Status put(const void* message, std::size_t length);
  // Publishes what was put. Never waits.
  Status flush(Deadline deadline);
  std::size_t unflushed() const { return 0; }

  // Room for a message that is written in place; `timed_out` and `too_large` as for send().
  // The message must fit one record (longest_loan()).
  Status loan(std::size_t length, Deadline deadline, std::byte*& room);
  Status commit_loan(std::size_t length);
  std::uint64_t longest_loan() const { return tx_.ring().longest_record(); }

  // --- receiving ---------------------------------------------------------------------------------

  // ok when the next message has begun to arrive; timed_out when there is none.
  Status poll_message() {
    if (message_begun_) return Status::ok;
    return begin_message();
  }
  Status wait_message(Deadline deadline);

  std::uint64_t message_length() const { return message_.length; }
  // True when the whole message lies in one piece at message_data().
  bool message_complete() const {
    return message_.kind == RecordKind::data && copied_ == 0 &&
           rx_.available() >= round_to_line(kRecordHeader + message_.length);
  }
  const std::byte* message_data() const { return rx_.payload(); }
  // Ends a complete message and gives its room back. Positions lie on lines, so its last byte did
  // not come without the padding behind it.
  void consume() {
    message_begun_ = false;
    give_back(round_to_line(kRecordHeader + message_.length));
  }
  // Copies the message to `destination`, which must stay the same until this is ok or anything but
  // timed_out and interrupted. `restart`: the peer gave the message up; poll again.
  Status read_message(std::byte* destination, Deadline deadline, bool& restart);
  // Copies what there is of a record to `destination`, as read_message() does, and looks for the
  // rest for as long as a copy may take. True when that was all of it; otherwise read_message()
  // goes on, also with a stream and with whatever went wrong.
  bool read_soon(std::byte* destination);
  std::uint64_t copied() const { return copied_; }
  // What was copied of the message cannot be kept until the next call. False when it is gone for good
  // (a stream's room was given back): the channel is broken then.
  bool forget_copied() {
    if (message_.kind == RecordKind::data) copied_ = 0;
    if (copied_ == 0) return true;
    rx_.fail("no memory to keep the part of a message that came in time");
    message_begun_ = false;
    return false;
  }
  // Waits until message_complete(); only for a message of one record.
  Status complete_message(Deadline deadline);
  bool fits_in_place() const { return message_.kind == RecordKind::data && copied_ == 0; }

  // --- both --------------------------------------------------------------------------------------

  bool peer_alive();
  // A closed ring says so itself: peer_lost is the truth.
  Status how_it_ended() const { return usable(); }
  // Wakes every waiter, waits until nobody is inside, says goodbye and lets go of every handle.
  // Where the calling thread is itself inside, the latter is left to finish_close(). Waits up to the
  // deadline for the peer to make room for the rest of a stream that was begun; interrupted when it
  // waited no longer for that reason, and closed all the same.
  Status close(Deadline goodbye = Deadline::immediate());
  void finish_close();
  // For a forked child: lets go of the handles without a word to the peer.
  void abandon();
  int handle() const { return watch_.control(); }
  const char* violation() const { return violation_; }
  int last_error() const { return last_error_; }
  std::shared_ptr<Segment> memory() const { return segment_; }

 private:
  // How far to write on without seeing the peer move before asking whether it lives. More than one
  // short record: the look at the peer's position takes its line while the peer is at it.
  static constexpr std::uint64_t kLivenessStep = 8 * 1024;
  // How long to pause between two looks of a spin. Each look takes the line from the peer that is
  // about to write it. Whoever has sent something waits for the answer and looks all the time, and
  // so does whoever waits for the rest of a message: the peer is copying it in just now. Whoever
  // only listens looks less often and then finds several messages at once; whoever waits for room
  // had better not disturb the consumer that makes it.
  static constexpr int kPausesForAnswer = 1;
  static constexpr int kPausesForRest = 1;
  static constexpr int kPausesForMessage = 24;
  static constexpr int kPausesForRoom = 32;
  // How often read_soon() looks in vain: a few microseconds, a copy of the longest step.
  static constexpr int kLooksForRest = 64;

  Status write_record(const void* message, std::size_t length, std::uint64_t bytes) {
    tx_.begin(RecordKind::data, length);
    if (length <= kShortestStep) [[likely]] {
      std::memcpy(tx_.payload(), message, length);
      tx_.advance(bytes);
      return publish();
    }
    return write_in_steps(static_cast<const std::byte*>(message), length, bytes);
  }

  Status publish() {
    const PeerWas peer = tx_.publish();
    tx_.prefetch_next();
    has_sent_.store(true, std::memory_order_relaxed);
    if (peer == PeerWas::awake && tx_.unread() < liveness_mark_) [[likely]]
      return Status::ok;
    return after_publish(peer);
  }

  Status why_not_try(std::uint64_t length) const {
    if (length > limits_.max_send) return Status::too_large;
    return usable() != Status::ok ? usable() : Status::timed_out;
  }
  Status usable() const { return ended_.load(std::memory_order_relaxed); }
  Status peer_ended();
  Status after_publish(PeerWas peer);
  bool stopped() const { return is_closed() && !closing_; }
  Status write_in_steps(const std::byte* message, std::size_t length, std::uint64_t bytes);
  Status stream(const std::byte* message, std::size_t length, Deadline deadline);
  Status settle(Deadline deadline);
  Status begin_message();
  Status read_mark(Deadline deadline, bool& restart);
  void give_back(std::uint64_t bytes) { tell_room(rx_.release(bytes)); }
  void tell_room(PeerWas peer) {
    // A bell made to block is heard in the other direction, or is the peer's own loss.
    if (peer == PeerWas::asleep) [[unlikely]]
      static_cast<void>(peer_.space.ring());
  }
  Status wait_for_room(std::uint64_t bytes, Deadline deadline);
  Status wait_for_more(Deadline deadline);
  template <class Ready>
  Status wait(Ready ready, std::atomic<std::uint32_t>& state, const Doorbell& doorbell,
              AdaptiveSpin& spin, int pauses, Deadline deadline);
  Status end_close(Interruption interruption, Deadline patience);
  Status finish_stream();
  void release_handles();
  Status corrupt(const char* violation) {
    violation_ = violation;
    return Status::corrupt;
  }

  std::shared_ptr<Segment> segment_;
  RingProducer tx_;
  RingConsumer rx_;
  const Limits limits_;
  // What is shorter fits one record and the limit; 0 once the peer is gone.
  std::atomic<std::uint64_t> try_below_;
  std::atomic<Status> ended_{Status::ok};  // how the peer went, once somebody saw it
  std::uint64_t liveness_mark_ = kLivenessStep;
  std::uint64_t unsent_ = 0;  // bytes of a given-up stream still to pass through the ring
  bool mark_owed_ = false;    // and its abort mark
  Record message_;            // the message being received
  bool message_begun_ = false;
  std::atomic<bool> has_sent_{false};  // since the last wait for a message; a hint only
  std::uint64_t copied_ = 0;  // payload bytes of it already copied out
  AdaptiveSpin send_spin_;
  AdaptiveSpin receive_spin_;
  Doorbells own_;
  Doorbells peer_;
  PeerWatch watch_;
  Interruption interruption_;
  bool closing_ = false;  // whoever holds both directions says goodbye
  std::atomic<const char*> violation_{""};
  std::atomic<int> last_error_{0};
  std::mutex handles_;  // between those that let go of the handles and peer_alive()
};

}  // namespace proclink
