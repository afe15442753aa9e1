// A channel of the core as Python sees it.
//
// Every call gives its plain result when a message went through, and otherwise an Event. What an
// event means is decided in Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "direction_lock.hpp"
#include "event.hpp"
#include "gil.hpp"
#include "payload.hpp"
#include "status.hpp"

namespace proclink::python {

// Up to this length a copy is shorter than the hand-over of the interpreter to another thread.
constexpr std::size_t kCopyWithGil = 32 * 1024;

template <class Channel>
class ChannelObject {
 public:
  template <class... Arguments>
    requires std::is_constructible_v<Channel, Arguments...>
  explicit ChannelObject(Arguments&&... arguments)
      : channel_(std::forward<Arguments>(arguments)...) {}

  Channel& channel() { return channel_; }

  nb::object send(nb::handle message, nb::handle seconds) {
    Timeout timeout;
    Payload payload;
    if (!timeout.parse(seconds.ptr()) || !payload.read(message.ptr())) throw nb::python_error();
    if (payload.length() <= kCopyWithGil && enter(channel_.sending)) [[likely]] {
      const Status status = channel_.try_send(payload.data(), payload.length());
      if (status != Status::timed_out) [[likely]] {
        leave(channel_.sending);
        if (status == Status::ok) [[likely]]
          return nb::none();
        return event(how_it_went(status), timeout);
      }
      stay(channel_.sending);
    } else {
      const Status status = take(channel_.sending, timeout);
      if (status != Status::ok) return event(status, timeout);
    }
    const Status status = send_waiting(payload, timeout);
    channel_.sending.give();
    if (status == Status::ok) return nb::none();
    return event(how_it_went(status), timeout);
  }

  // The number of messages sent, or an event whose detail is that number.
  nb::object send_many(nb::handle messages, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    const nb::object fast = nb::steal(
        PySequence_Fast(messages.ptr(), "send_many() takes an iterable of bytes-like objects"));
    if (!fast.is_valid()) throw nb::python_error();
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
    // Before anything is sent: a list with something else in it sends nothing.
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* const message = PySequence_Fast_GET_ITEM(fast.ptr(), i);
      if (!PyObject_CheckBuffer(message)) {
        PyErr_Format(PyExc_TypeError, "a bytes-like object is required, not '%.100s' (item %zd)",
                     Py_TYPE(message)->tp_name, i);
        throw nb::python_error();
      }
    }
    Status status = take(channel_.sending, timeout);
    if (status != Status::ok) return event(status, timeout, 0);
    Py_ssize_t sent = 0;
    while (sent < count) {
      Payload payload;
      if (!payload.read(PySequence_Fast_GET_ITEM(fast.ptr(), sent))) {
        channel_.flush(Deadline::immediate());
        channel_.sending.give();
        throw nb::python_error();
      }
      status = channel_.put(payload.data(), payload.length());
      if (status == Status::timed_out) {
        status = flush(timeout);
        if (status != Status::ok) break;
        status = channel_.put(payload.data(), payload.length());
        // It fits no batch, or not now.
        if (status == Status::timed_out) status = send_waiting(payload, timeout);
      }
      if (status != Status::ok) break;
      ++sent;
    }
    if (status == Status::ok || status == Status::too_large) {
      const Status flushed = flush(timeout);
      if (status == Status::ok) status = flushed;
    }
    sent -= static_cast<Py_ssize_t>(channel_.unflushed());
    channel_.sending.give();
    if (status == Status::ok) return nb::int_(sent);
    return event(how_it_went(status), timeout, static_cast<std::uint64_t>(sent));
  }

  // bytes, or an event.
  nb::object recv(nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    if (enter(channel_.receiving)) [[likely]] {
      if (channel_.poll_message() == Status::ok && channel_.message_complete() &&
          channel_.message_length() <= kCopyWithGil) [[likely]] {
        nb::object message = copy_out();
        leave(channel_.receiving);
        return message;
      }
      stay(channel_.receiving);
    } else {
      const Status status = take(channel_.receiving, timeout);
      if (status != Status::ok) return event(status, timeout);
    }
    const Turn turn{channel_.receiving};
    return receive(timeout);
  }

  // A list of 1 to `most` messages, or an event.
  nb::object recv_many(std::size_t most, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    const Status status = take(channel_.receiving, timeout);
    if (status != Status::ok) return event(status, timeout);
    const Turn turn{channel_.receiving};
    nb::object message = receive(timeout);
    if (!PyBytes_Check(message.ptr())) return message;
    nb::list messages;
    messages.append(message);
    while (nb::len(messages) < most && channel_.poll_message() == Status::ok &&
           channel_.message_complete()) {
      messages.append(copy_out());
    }
    return messages;
  }

  // The number of bytes written to `target`, or an event; with too_small, the length it takes.
  nb::object recv_into(nb::handle target, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    Py_buffer buffer;
    if (PyObject_GetBuffer(target.ptr(), &buffer, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0)
      throw nb::python_error();
    const std::unique_ptr<Py_buffer, void (*)(Py_buffer*)> release(&buffer, PyBuffer_Release);
    const Status status = take(channel_.receiving, timeout);
    if (status != Status::ok) return event(status, timeout);
    const Turn turn{channel_.receiving};
    return receive_into(buffer, timeout);
  }

  bool peer_alive() { return channel_.peer_alive(); }
  // Whether recv(0) would find at least the beginning of a message. True when another thread is
  // receiving, who will see for himself.
  bool has_message() {
    if (channel_.is_closed()) return false;
    if (!channel_.receiving.try_take()) return true;
    const Turn turn{channel_.receiving};
    return pending_.is_valid() || channel_.wait_message(Deadline::immediate()) == Status::ok;
  }
  bool is_closed() const { return channel_.is_closed(); }
  int handle() const { return channel_.handle(); }
  const char* violation() const { return channel_.violation(); }
  int last_error() const { return channel_.last_error(); }
  void close() {
    bool first;
    {
      const WithoutGil released;
      first = channel_.begin_close();
    }
    // Having had the GIL once since, nobody is between enter() and leave() any more.
    if (!first) return;
    const WithoutGil released;
    channel_.end_close();
  }
  void abandon() { channel_.abandon(); }

 protected:
  // The short way into a direction, for a call that does not let go of the GIL before leave(): the
  // GIL itself keeps everybody else out then, and the lock only has to be free. A call that has to
  // wait after all takes the lock with stay().
  bool enter(DirectionLock& lock) {
    if (channel_.is_closed()) [[unlikely]]
      return false;
#ifdef Py_GIL_DISABLED
    return lock.try_take();
#else
    return lock.is_free();
#endif
  }
  void leave([[maybe_unused]] DirectionLock& lock) {
#ifdef Py_GIL_DISABLED
    lock.give();
#endif
  }
  void stay([[maybe_unused]] DirectionLock& lock) {
#ifndef Py_GIL_DISABLED
    lock.try_take();
#endif
  }

  Status take(DirectionLock& lock, Timeout& timeout) {
    if (channel_.is_closed()) [[unlikely]]
      return Status::closed;
    if (!lock.try_take()) [[unlikely]] {
      const Deadline deadline = timeout.deadline();
      const WithoutGil released;
      const Status status = lock.take(deadline, signal_raised);
      if (status != Status::ok) return status;
    }
    if (channel_.is_closed()) [[unlikely]] {
      lock.give();
      return Status::closed;
    }
    return Status::ok;
  }

  // Gives a direction back, whatever comes of the call.
  struct Turn {
    DirectionLock& lock;
    bool leased = false;  // somebody else gives it back
    ~Turn() {
      if (!leased) lock.give();
    }
  };

  // A sender only learns that the peer is gone. Whether it said goodbye stands in the other
  // direction, unless somebody is receiving there, who will be told.
  Status how_it_went(Status status) {
    if (status != Status::peer_lost || !enter(channel_.receiving)) return status;
    const bool goodbye = channel_.goodbye_is_waiting();
    leave(channel_.receiving);
    return goodbye ? Status::peer_closed : status;
  }

  Status send_waiting(const Payload& payload, Timeout& timeout) {
    const Deadline deadline = timeout.deadline();
    const WithoutGil released;
    return channel_.send(payload.data(), payload.length(), deadline);
  }

  Status flush(Timeout& timeout) {
    const Deadline deadline = timeout.deadline();
    const WithoutGil released;
    return channel_.flush(deadline);
  }

  Status next(Timeout& timeout) {
    const Status status = channel_.poll_message();
    if (status != Status::timed_out) return status;
    const Deadline deadline = timeout.deadline();
    const WithoutGil released;
    return channel_.wait_message(deadline);
  }

  nb::object copy_out() {
    PyObject* const message =
        PyBytes_FromStringAndSize(reinterpret_cast<const char*>(channel_.message_data()),
                                  static_cast<Py_ssize_t>(channel_.message_length()));
    if (message == nullptr) throw nb::python_error();
    channel_.consume();
    return nb::steal(message);
  }

  // What begins to arrive in one call and is complete in a later one waits in pending_.
  void make_pending() {
    pending_ = nb::steal(PyBytes_FromStringAndSize(
        nullptr, static_cast<Py_ssize_t>(channel_.message_length())));
    if (!pending_.is_valid()) throw nb::python_error();
  }

  std::byte* pending_data() {
    return reinterpret_cast<std::byte*>(PyBytes_AS_STRING(pending_.ptr()));
  }

  Status read(std::byte* destination, Timeout& timeout, bool& restart) {
    const Deadline deadline = timeout.deadline();
    const WithoutGil released;
    return channel_.read_message(destination, deadline, restart);
  }

  nb::object receive(Timeout& timeout) {
    for (;;) {
      Status status = next(timeout);
      if (status != Status::ok) return event(status, timeout);
      if (!pending_.is_valid()) {
        if (channel_.message_complete() && channel_.message_length() <= kCopyWithGil) [[likely]]
          return copy_out();
        make_pending();
      }
      bool restart = false;
      status = read(pending_data(), timeout, restart);
      if (status == Status::timed_out || status == Status::interrupted)
        return event(status, timeout);
      nb::object message = std::move(pending_);
      pending_ = nb::object();
      if (status != Status::ok) return event(status, timeout);
      if (!restart) return message;
    }
  }

  nb::object receive_into(const Py_buffer& target, Timeout& timeout) {
    for (;;) {
      Status status = next(timeout);
      if (status != Status::ok) return event(status, timeout);
      const std::uint64_t length = channel_.message_length();
      if (length > static_cast<std::uint64_t>(target.len))
        return event(Status::too_small, timeout, length);
      bool restart = false;
      if (pending_.is_valid()) {
        status = read(pending_data(), timeout, restart);
        if (status == Status::ok && !restart)
          std::memcpy(target.buf, pending_data(), static_cast<std::size_t>(length));
        if (status != Status::timed_out && status != Status::interrupted) pending_ = nb::object();
      } else {
        auto* const destination = static_cast<std::byte*>(target.buf);
        status = read(destination, timeout, restart);
        if ((status == Status::timed_out || status == Status::interrupted) &&
            channel_.copied() > 0) {
          // The caller's buffer may be gone at the next call.
          keep_pending(destination, status);
        }
      }
      if (status != Status::ok) return event(status, timeout);
      if (!restart) return nb::int_(length);
    }
  }

  void keep_pending(const std::byte* partly, Status status) {
    PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
    if (status == Status::interrupted) PyErr_Fetch(&type, &value, &trace);
    make_pending();
    if (status == Status::interrupted) PyErr_Restore(type, value, trace);
    std::memcpy(pending_data(), partly, static_cast<std::size_t>(channel_.copied()));
  }

  Channel channel_;
  nb::object pending_;
};

}  // namespace proclink::python
