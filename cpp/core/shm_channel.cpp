#include "shm_channel.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace proclink {
namespace {

constexpr const char* kBlockingDoorbell = "it made a doorbell block";

}  // namespace

ShmChannel::ShmChannel(std::shared_ptr<Segment> segment, bool creator, Doorbells own,
                       Doorbells peer, PeerWatch watch, const Limits& limits,
                       Interruption interruption)
    : segment_(std::move(segment)),
      tx_(segment_->ring(creator ? 0 : 1)),
      rx_(segment_->ring(creator ? 1 : 0), limits.max_receive),
      limits_(limits),
      try_below_(std::min(limits.max_send, tx_.ring().longest_record()) + 1),
      send_spin_(limits.spin),
      receive_spin_(limits.spin),
      own_(std::move(own)),
      peer_(std::move(peer)),
      watch_(std::move(watch)),
      interruption_(interruption) {}

// --- waiting ---------------------------------------------------------------------------------------

// Spins, then sleeps, until ready(). The order of the steps is the whole protocol:
//   raise the flag -> look again -> sleep on doorbell, control socket and process -> drain -> look.
// There is no time slice in it: a lost wake would hang, and the tests would see it.
template <class Ready>
Status ShmChannel::wait(Ready ready, std::atomic<std::uint32_t>& state, const Doorbell& doorbell,
                        AdaptiveSpin& spin, int pauses, Deadline deadline) {
  if (deadline.is_immediate()) {
    if (stopped()) return Status::closed;
    if (!watch_.peer_gone()) return Status::timed_out;
    return ready() ? Status::ok : Status::peer_lost;
  }
  const Nanoseconds budget = spin.budget();
  if (budget > 0) {
    if (AdaptiveSpin::until(std::min(budget, deadline.remaining()), ready, pauses)) {
      spin.ended_in_spin();
      return Status::ok;
    }
    // A signal that came during the spin will not interrupt the sleep.
    if (interruption_.came()) return Status::interrupted;
    if (stopped()) return Status::closed;
  }
  const Nanoseconds start = spin.enabled() ? now() : 0;
  constexpr unsigned kRings = 64;
  for (unsigned rings = 1;; ++rings) {
    // seq_cst, and again in ready(): partners are publish()/release() and take_down() of the peer.
    state.store(kAsleep, std::memory_order_seq_cst);
    if (ready()) break;
    if (stopped()) return Status::closed;  // close() wakes whoever looked before
    Woken woken = watch_.sleep(doorbell, interruption_.next_look(deadline));
    if (woken == Woken::timed_out && !deadline.passed()) woken = Woken::signal;
    if (woken == Woken::doorbell) {
      doorbell.drain();
      if (spin.enabled() && !is_closed()) spin.ended_in_sleep(now() - start);
      // However often the peer rings: a sleep that always ends at once is interrupted by nothing.
      if (deadline.passed()) {
        woken = Woken::timed_out;
      } else if (rings % kRings == 0) {
        woken = Woken::signal;
      } else {
        continue;
      }
    }
    if (woken == Woken::signal) {
      const bool stop = interruption_.came();
      // The handler closed, or it forked and this is the child, which has no ring any more.
      if (stopped()) return Status::closed;
      if (!stop) continue;
      state.store(kAwake, std::memory_order_seq_cst);
      return Status::interrupted;
    }
    if (woken == Woken::failed) {
      last_error_ = errno;
      state.store(kAwake, std::memory_order_seq_cst);
      return Status::no_resources;
    }
    // Whatever the peer published before it went is there to be seen now.
    const bool more = ready();
    state.store(kAwake, std::memory_order_seq_cst);
    if (more) return Status::ok;
    if (stopped()) return Status::closed;
    return woken == Woken::timed_out ? Status::timed_out : Status::peer_lost;
  }
  // A peer that took the flag down meanwhile has rung or will ring: the next sleep then ends at
  // once and looks again, which is harmless.
  state.store(kAwake, std::memory_order_seq_cst);
  return Status::ok;
}

// The peer is gone: how, is found out once, by whichever direction sees it first, and stays so. What
// it had sent can still be received; nothing is sent any more.
Status ShmChannel::peer_ended() {
  // This end's own close looks the same to the watch.
  if (stopped()) return Status::closed;
  const Status how =
      tx_.peer_is_closed() || rx_.peer_is_closed() ? Status::peer_closed : Status::peer_lost;
  Status known = Status::ok;
  if (!ended_.compare_exchange_strong(known, how, std::memory_order_relaxed)) return known;
  try_below_.store(0, std::memory_order_relaxed);
  return how;
}

Status ShmChannel::wait_for_room(std::uint64_t bytes, Deadline deadline) {
  const auto ready = [&] { return tx_.has_room(bytes) || tx_.corrupt(); };
  if (!ready()) {
    const Status status =
        wait(ready, tx_.ring().words->producer_state, own_.space, send_spin_,
             kPausesForRoom, deadline);
    if (status == Status::peer_lost) return peer_ended();
    if (status != Status::ok) return status;
  }
  return tx_.corrupt() ? corrupt("the peer's position is outside the ring") : Status::ok;
}

Status ShmChannel::wait_for_more(Deadline deadline) {
  const auto ready = [&] { return rx_.refresh() || rx_.corrupt(); };
  if (!ready()) {
    int pauses = kPausesForRest;
    if (!message_begun_) {
      const bool answer = has_sent_.exchange(false, std::memory_order_relaxed);
      pauses = answer ? kPausesForAnswer : kPausesForMessage;
    }
    if (rx_.owes_room()) tell_room(rx_.tell());
    const Status status = wait(ready, rx_.ring().words->consumer_state, own_.data, receive_spin_,
                               pauses, deadline);
    if (status == Status::peer_lost) {
      const Status how = peer_ended();
      return message_begun_ && how != Status::closed ? Status::truncated : how;
    }
    if (status != Status::ok) return status;
  }
  return rx_.corrupt() ? corrupt(rx_.violation()) : Status::ok;
}

// --- sending ---------------------------------------------------------------------------------------

Status ShmChannel::after_publish(PeerWas peer) {
  if (peer == PeerWas::asleep && !peer_.data.ring()) return corrupt(kBlockingDoorbell);
  const std::uint64_t unread = tx_.unread();
  tx_.room();
  if (tx_.corrupt()) return corrupt("the peer's position is outside the ring");
  // A peer killed in its sleep would take messages for ever. So whoever rings looks, and whoever
  // writes on and on without seeing the peer move looks from time to time.
  const bool moved = unread >= liveness_mark_ && tx_.unread() < unread;
  liveness_mark_ = tx_.unread() + kLivenessStep;
  if (peer != PeerWas::closed && (moved || !watch_.peer_gone())) return Status::ok;
  const Status how = peer_ended();
  // It may have taken this message and gone then. And what is published before this end closes counts.
  tx_.room();
  return tx_.unread() == 0 || how == Status::closed ? Status::ok : how;
}

Status ShmChannel::write_in_steps(const std::byte* message, std::size_t length,
                                  std::uint64_t bytes) {
  std::byte* const payload = tx_.payload();
  const std::uint64_t most = RingMemory::publish_step(bytes);
  std::uint64_t published = 0;  // of bytes; a multiple of the line
  std::size_t done = 0;         // of length; shorter by the header
  for (;;) {
    const std::uint64_t step = std::min(most, bytes - published);
    published += step;
    const auto upto = static_cast<std::size_t>(
        std::min<std::uint64_t>(published - kRecordHeader, length));
    std::memcpy(payload + done, message + done, upto - done);
    done = upto;
    tx_.advance(step);
    if (published == bytes) return publish();
    // The consumer gives nothing back before it has the whole record, so that it did not move since
    // the last step says nothing, and whether it lives is asked with the last one. That is a system
    // call, longer than the copy of a step.
    if (const PeerWas peer = tx_.publish(); peer != PeerWas::awake) [[unlikely]] {
      const Status status = after_publish(peer);
      if (status != Status::ok) return status;
    }
  }
}

Status ShmChannel::send(const void* message, std::size_t length, Deadline deadline) {
  if (is_closed()) return Status::closed;
  if (length > limits_.max_send) return Status::too_large;
  if (usable() != Status::ok) return usable();
  Status status = settle(deadline);
  if (status != Status::ok) return status;
  if (length > tx_.ring().longest_record())
    return stream(static_cast<const std::byte*>(message), length, deadline);
  const std::uint64_t bytes = round_to_line(kRecordHeader + length);
  status = wait_for_room(bytes, deadline);
  return status == Status::ok ? write_record(message, length, bytes) : status;
}

Status ShmChannel::stream(const std::byte* message, std::size_t length, Deadline deadline) {
  const std::uint64_t total = round_to_line(kRecordHeader + length);
  const std::uint64_t piece = tx_.ring().stream_piece();
  std::uint64_t flowed = 0;  // of total; a multiple of the line
  while (flowed < total) {
    Status status = wait_for_room(kLine, deadline);
    if (status == Status::ok) {
      const std::uint64_t step = std::min({tx_.room() & ~std::uint64_t{kLine - 1},
                                           total - flowed, piece});
      std::uint64_t skip = 0;
      if (flowed == 0) {
        tx_.begin(RecordKind::stream, length);
        skip = kRecordHeader;
      }
      const std::uint64_t from = flowed + skip - kRecordHeader;
      const std::uint64_t count = std::min(step - skip, length - std::min<std::uint64_t>(length, from));
      std::memcpy(tx_.at_offset(skip), message + from, static_cast<std::size_t>(count));
      tx_.advance(step);
      flowed += step;
      status = publish();
    }
    if (status != Status::ok) {
      if (flowed > 0) {
        unsent_ = total - flowed;
        mark_owed_ = true;
      }
      return status;
    }
  }
  const Status status = wait_for_room(kLine, deadline);
  if (status != Status::ok) {
    mark_owed_ = true;
    return status;
  }
  tx_.begin(RecordKind::commit, 0);
  tx_.advance(kLine);
  return publish();
}

// Lets the rest of a stream that was given up pass, and marks it as aborted.
Status ShmChannel::settle(Deadline deadline) {
  while (mark_owed_) {
    Status status = wait_for_room(kLine, deadline);
    if (status != Status::ok) return status;
    if (unsent_ > 0) {
      const std::uint64_t step = std::min(tx_.room() & ~std::uint64_t{kLine - 1}, unsent_);
      tx_.advance(step);
      unsent_ -= step;
    } else {
      tx_.begin(RecordKind::abort, 0);
      tx_.advance(kLine);
      mark_owed_ = false;
    }
    status = publish();
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

Status ShmChannel::put(const void* message, std::size_t length) {
  if (length > limits_.max_send) return Status::too_large;
  if (usable() != Status::ok) return usable();
  const std::uint64_t bytes = round_to_line(kRecordHeader + length);
  if (length > tx_.ring().longest_in_batch() || mark_owed_ || !tx_.has_room(bytes))
    return tx_.corrupt() ? corrupt("the peer's position is outside the ring") : Status::timed_out;
  tx_.begin(RecordKind::data, length);
  std::memcpy(tx_.payload(), message, length);
  tx_.advance(bytes);
  // The consumer need not wait for the end of a long batch.
  return (tx_.position() & (kBatchStep - 1)) < bytes ? publish() : Status::ok;
}

Status ShmChannel::flush(Deadline) {
  return usable() == Status::ok ? publish() : usable();
}

Status ShmChannel::loan(std::size_t length, Deadline deadline, std::byte*& room) {
  if (is_closed()) return Status::closed;
  if (length > limits_.max_send) return Status::too_large;
  if (usable() != Status::ok) return usable();
  Status status = settle(deadline);
  if (status == Status::ok)
    status = wait_for_room(round_to_line(kRecordHeader + length), deadline);
  if (status == Status::ok) room = tx_.payload();
  return status;
}

Status ShmChannel::commit_loan(std::size_t length) {
  if (usable() != Status::ok) return usable();
  tx_.begin(RecordKind::data, length);
  tx_.advance(round_to_line(kRecordHeader + length));
  return publish();
}

// --- receiving -------------------------------------------------------------------------------------

Status ShmChannel::begin_message() {
  if (rx_.available() == 0 && !rx_.refresh()) [[unlikely]] {
    if (rx_.corrupt()) return corrupt(rx_.violation());
    return is_closed() ? Status::closed : Status::timed_out;
  }
  if (!rx_.header(message_)) return corrupt(rx_.violation());
  if (message_.kind == RecordKind::commit || message_.kind == RecordKind::abort) {
    rx_.fail("a mark without a stream before it");
    return corrupt(rx_.violation());
  }
  message_begun_ = true;
  copied_ = 0;
  return Status::ok;
}

Status ShmChannel::wait_message(Deadline deadline) {
  for (;;) {
    Status status = poll_message();
    if (status != Status::timed_out) return status;
    status = wait_for_more(deadline);
    if (status != Status::ok) return status;
  }
}

Status ShmChannel::complete_message(Deadline deadline) {
  while (!message_complete()) {
    const Status status = wait_for_more(deadline);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

bool ShmChannel::read_soon(std::byte* destination) {
  if (message_.kind != RecordKind::data) return false;
  for (int look = 0;;) {
    const std::uint64_t offset = kRecordHeader + copied_;
    if (rx_.available() > offset) {
      const std::uint64_t count = std::min(rx_.available() - offset, message_.length - copied_);
      std::memcpy(destination + copied_, rx_.at_offset(offset), static_cast<std::size_t>(count));
      copied_ += count;
      if (copied_ == message_.length) break;
    }
    // Looks are counted over the whole message: a peer that brings it line by line is not waited
    // for with each.
    while (!rx_.refresh()) {
      if (rx_.corrupt() || ++look > kLooksForRest) return false;
      cpu_relax();
    }
  }
  consume();
  return true;
}

Status ShmChannel::read_message(std::byte* destination, Deadline deadline, bool& restart) {
  restart = false;
  const bool streamed = message_.kind == RecordKind::stream;
  const std::uint64_t length = message_.length;
  const std::uint64_t piece = rx_.ring().stream_piece();
  while (copied_ < length) {
    // Where the next byte lies, counted from the consumer's position: that stays at the start of a
    // record until all of it is copied, and moves through a stream as its room is given back.
    const std::uint64_t offset =
        streamed && copied_ > 0 ? (kRecordHeader + copied_) & (kLine - 1) : kRecordHeader + copied_;
    if (rx_.available() <= offset) {
      const Status status = wait_for_more(deadline);
      if (status != Status::ok) return status;
      continue;
    }
    const std::uint64_t count = std::min({rx_.available() - offset, length - copied_, piece});
    std::memcpy(destination + copied_, rx_.at_offset(offset), static_cast<std::size_t>(count));
    copied_ += count;
    if (streamed) {
      const std::uint64_t passed =
          copied_ == length ? round_to_line(offset + count) : (offset + count) & ~std::uint64_t{kLine - 1};
      if (passed > 0) give_back(passed);
    }
  }
  if (streamed) return read_mark(deadline, restart);
  consume();
  return Status::ok;
}

Status ShmChannel::read_mark(Deadline deadline, bool& restart) {
  while (rx_.available() == 0) {
    const Status status = wait_for_more(deadline);
    if (status != Status::ok) return status;
  }
  Record mark;
  if (!rx_.header(mark)) return corrupt(rx_.violation());
  if (mark.kind != RecordKind::commit && mark.kind != RecordKind::abort) {
    rx_.fail("a stream without a mark behind it");
    return corrupt(rx_.violation());
  }
  message_begun_ = false;
  restart = mark.kind == RecordKind::abort;
  give_back(kLine);
  return Status::ok;
}

// --- both ------------------------------------------------------------------------------------------

bool ShmChannel::peer_alive() {
  if (is_closed()) return false;  // before the mutex, which a forked child may have inherited locked
  const std::lock_guard guard(handles_);
  if (is_closed()) return false;
  if (!watch_.peer_gone()) return true;
  peer_ended();
  return false;
}

Status ShmChannel::close(Deadline goodbye) {
  if (!mark_closed(goodbye)) return Status::ok;
  // Not by the own doorbells: the peer could take the ring away.
  watch_.wake_own();
  return end_close(interruption_, for_those_inside());
}

void ShmChannel::finish_close() {
  // The call that leaves has its outcome already, so nothing interrupts this; and it waits for nobody:
  // what it cannot end is ended by those that are still inside.
  if (owes_close()) end_close(Interruption(), Deadline::immediate());
}

// A stream that was given up gets its end, where the peer makes room for it in time. A peer that
// waits for room itself before it reads gets that room: what it sent is dropped.
Status ShmChannel::finish_stream() {
  closing_ = true;
  constexpr Nanoseconds kLook = 10'000'000;
  for (;;) {
    if (rx_.refresh() || rx_.available() > 0) give_back(rx_.available());
    const Deadline deadline = closing_until();
    const bool last = deadline.remaining() <= kLook;
    const Status status = settle(last ? deadline : Deadline::after(kLook));
    if (status != Status::timed_out || last) return status;
  }
}

Status ShmChannel::end_close(Interruption interruption, Deadline patience) {
  if (!take_to_end(sending, patience)) return Status::ok;
  if (is_ended() || !take_to_end(receiving, patience)) {
    sending.give();
    return Status::ok;
  }
  interruption_ = interruption;
  {
    const std::lock_guard guard(handles_);
    watch_.expect_only_hangup();
  }
  const Status status = mark_owed_ && usable() == Status::ok ? finish_stream() : Status::ok;
  // Before the control socket ends: a peer that sees its end then also sees that it was meant.
  tx_.ring().words->producer_state.store(kClosed, std::memory_order_seq_cst);
  rx_.ring().words->consumer_state.store(kClosed, std::memory_order_seq_cst);
  watch_.say_goodbye();
  {
    const std::lock_guard guard(handles_);
    release_handles();
  }
  segment_.reset();  // views of it keep it
  note_end();
  receiving.give();
  sending.give();
  return status;
}

void ShmChannel::abandon() {
  mark_abandoned();
  release_handles();
}

void ShmChannel::release_handles() {
  watch_.close();
  for (Doorbells* bells : {&own_, &peer_}) {
    bells->data.close();
    bells->space.close();
  }
}

}  // namespace proclink
