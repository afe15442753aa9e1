// The two directions of a channel, and closing it while they may be in use.
#pragma once

#include <atomic>

#include "clock.hpp"
#include "direction_lock.hpp"
#include "interruption.hpp"
#include "status.hpp"

namespace proclink {

// A channel derives from this. It closes in three steps:
//   mark_closed()  nobody comes in any more; then the channel wakes those that wait inside
//   both directions are taken, when they have left
//   the channel says goodbye, for which it may wait until closing_until(), and lets go of its handles
// A thread that closes the channel out of a call of its own (from a signal handler that interrupted
// it) cannot wait for itself. Then the rest is owed, and whoever leaves the channel next does it:
// see finish_close() of the channels.
class Directions {
 public:
  DirectionLock sending;
  DirectionLock receiving;

  // Takes a direction of this channel; see DirectionLock::take().
  Status enter(DirectionLock& direction, Deadline deadline, Interruption interruption) {
    const Status status = direction.take(deadline, interruption);
    // A view or loan that is released when the channel is marked leaves its direction, still leased to
    // it, to the thread that closes.
    return status == Status::held && is_closed() ? Status::closed : status;
  }

  // In a forked child, before anything else runs there: it has no part in the channel.
  void mark_abandoned() {
    closed_.store(true, std::memory_order_release);
    sending.abandon();
    receiving.abandon();
  }

  bool is_closed() const { return closed_.load(std::memory_order_seq_cst); }
  // Whether finish_close() has to be called by whoever has just left.
  bool owes_close() const { return owed_.load(std::memory_order_seq_cst); }

 protected:
  // False when that was done before.
  bool mark_closed(Deadline goodbye) {
    if (closed_.exchange(true, std::memory_order_seq_cst)) return false;
    goodbye_ = goodbye;
    sending.close();
    receiving.close();
    return true;
  }

  // Until when the closing thread may wait to say goodbye. For that thread alone: it marked the
  // channel, or claimed what is owed.
  Deadline closing_until() const { return goodbye_; }

  // How long a thread that closes or ends a direction waits for those inside, which were woken and
  // come out at once, unless one of them waits for that thread itself (in a signal handler).
  static Deadline for_those_inside() {
    constexpr Nanoseconds kLongest = 1'000'000'000;
    return Deadline::after(kLongest);
  }

  // Takes a direction to end the channel, `sending` first. False when it cannot be had: then the rest
  // of the close is owed, to be done by whoever leaves. Who leaves between the two attempts may not
  // see that it is, and so leaves the second one its direction; who leaves later sees it (the word of
  // the lock and owed_ are seq_cst or ordered by its mutex).
  bool take_to_end(DirectionLock& direction, Deadline patience) {
    if (direction.take_to_close(patience)) return true;
    owed_.store(true, std::memory_order_seq_cst);
    return direction.take_to_close(Deadline::immediate());
  }
  // With `sending`.
  bool is_ended() const { return ended_; }
  void note_end() {
    ended_ = true;
    owed_.store(false, std::memory_order_seq_cst);
  }

 private:
  std::atomic<bool> closed_{false};
  std::atomic<bool> owed_{false};
  bool ended_ = false;
  Deadline goodbye_ = Deadline::immediate();
};

}  // namespace proclink
