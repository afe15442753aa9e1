// The two directions of a channel, and closing it while they may be in use.
#pragma once

#include <atomic>

#include "clock.hpp"
#include "direction_lock.hpp"

namespace proclink {

// A channel derives from this. It closes in three steps:
//   mark_closed()  nobody comes in any more; then the channel wakes those that wait inside
//   take_both()    waits until they have left
//   the channel says goodbye, for which it may wait until closing_until(), and lets go of its handles
// A thread that closes the channel out of a call of its own (from a signal handler that interrupted
// it) cannot wait for itself. Then the rest is owed, and whoever leaves the channel next does it:
// see finish_close() of the channels.
class Directions {
 public:
  DirectionLock sending;
  DirectionLock receiving;

  bool is_closed() const { return closed_.load(std::memory_order_seq_cst); }
  // Whether finish_close() has to be called by whoever has just left.
  bool owes_close() const { return owed_.load(std::memory_order_acquire); }

 protected:
  // False when that was done before.
  bool mark_closed(Deadline goodbye) {
    if (closed_.exchange(true, std::memory_order_seq_cst)) return false;
    goodbye_ = goodbye;
    sending.close();
    receiving.close();
    return true;
  }

  void mark_abandoned() {
    closed_.store(true, std::memory_order_release);
    sending.abandon();
    receiving.abandon();
  }

  // Claims what is owed, for one caller.
  bool claim_close() { return owed_.exchange(false, std::memory_order_acq_rel); }

  // Until when the closing thread may wait to say goodbye. For that thread alone: it marked the
  // channel, or claimed what is owed.
  Deadline closing_until() const { return goodbye_; }

  // This very thread is inside a direction: what is left of the close waits for it to leave.
  void owe_close() { owed_.store(true, std::memory_order_release); }

  // False when this very thread is inside one of them: the close is owed again.
  bool take_both() {
    if (sending.take_to_close()) {
      if (receiving.take_to_close()) return true;
      sending.give();
    }
    owe_close();
    return false;
  }

 private:
  std::atomic<bool> closed_{false};
  std::atomic<bool> owed_{false};
  Deadline goodbye_ = Deadline::immediate();
};

}  // namespace proclink
