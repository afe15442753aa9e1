// The core's waits for what is written in Python: they hold nothing while they sleep, are ended by a
// signal, and know who is inside.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <utility>

#include "direction_lock.hpp"
#include "event.hpp"
#include "event_count.hpp"
#include "gil.hpp"

namespace proclink::python {

class EventCountObject {
 public:
  std::uint64_t count() const { return events_.count(); }
  void advance() { events_.advance(); }
  // False when the timeout passed first.
  bool wait(std::uint64_t seen, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    const Deadline deadline = timeout.deadline();
    Status status;
    {
      const WithoutGil released;
      status = events_.wait(seen, deadline, kSignals);
    }
    if (status == Status::interrupted) throw nb::python_error();
    return status == Status::ok;
  }

 private:
  EventCount events_;
};

// One turn at a lock, as a context manager: entering waits and gives None, or an event that says why
// not; leaving gives the lock back. Both are one step to a signal handler.
class TurnObject {
 public:
  TurnObject(nb::object owner, DirectionLock& lock, const Timeout& timeout)
      : owner_(std::move(owner)), lock_(lock), timeout_(timeout) {}

  nb::object enter() {
    const Deadline deadline = timeout_.deadline();
    Status status = lock_.try_take() ? Status::ok : Status::taken;
    if (status != Status::ok) {
      const WithoutGil released(&lock_);
      status = lock_.take(deadline, kSignals);
    }
    if (status != Status::ok) return event(status, timeout_);
    taken_ = true;
    return nb::none();
  }
  void exit() {
    if (std::exchange(taken_, false)) lock_.give();
  }

 private:
  nb::object owner_;
  DirectionLock& lock_;
  Timeout timeout_;
  bool taken_ = false;
};

class DirectionLockObject {
 public:
  static nb::object turn(nb::object self, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    DirectionLock& lock = nb::cast<DirectionLockObject&>(self).lock_;
    return nb::cast(new TurnObject(std::move(self), lock, timeout), nb::rv_policy::take_ownership);
  }
  void close() { lock_.close(); }

 private:
  DirectionLock lock_;
};

}  // namespace proclink::python
