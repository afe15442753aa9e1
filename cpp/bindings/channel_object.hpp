// A channel of the core as Python sees it.
//
// Every call gives its plain result when a message went through, and otherwise an Event. What an
// event means is decided in Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "direction_lock.hpp"
#include "event.hpp"
#include "fork_guard.hpp"
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
    if (payload.length() > kCopyWithGil || !channel_.sending.try_take())
      return send_waiting(payload, timeout, std::nullopt);
    Turn turn(channel_.sending);
    const Status status = channel_.try_send(payload.data(), payload.length());
    if (status == Status::ok) [[likely]]
      return nb::none();
    if (status == Status::timed_out) return send_waiting(payload, timeout, std::move(turn));
    turn.give();
    return event(how_it_went(status), timeout);
  }

  // The number of messages sent, or an event whose detail is that number.
  nb::object send_many(nb::handle messages, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    // A list may change while this call waits; a tuple does not.
    const nb::object batch =
        nb::steal(may_run_python([&] { return PySequence_Tuple(messages.ptr()); }));
    if (!batch.is_valid()) throw nb::python_error();
    const Py_ssize_t count = PyTuple_GET_SIZE(batch.ptr());
    // Before anything is sent: a batch with something else in it sends nothing.
    for (Py_ssize_t i = 0; i < count; ++i) {
      PyObject* const message = PyTuple_GET_ITEM(batch.ptr(), i);
      if (!PyObject_CheckBuffer(message)) {
        PyErr_Format(PyExc_TypeError, "a bytes-like object is required, not '%.100s' (item %zd)",
                     Py_TYPE(message)->tp_name, i);
        throw nb::python_error();
      }
    }
    const nb::int_ all(count);  // while nothing is sent yet
    const Leaving leaving(*this);
    Py_ssize_t sent = 0;
    Status status = take(channel_.sending, timeout);
    if (status == Status::ok) {
      const Turn turn(channel_.sending);
      status = send_batch(batch, sent, timeout);
    }
    if (status == Status::ok) return all;
    return event(how_it_went(status), timeout, static_cast<std::uint64_t>(sent));
  }

  // bytes, or an event.
  nb::object recv(nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    if (channel_.receiving.try_take()) [[likely]] {
      Turn turn(channel_.receiving);
      if (channel_.poll_message() == Status::ok && is_short()) [[likely]]
        return copy_out();
      return in_turn(std::move(turn), timeout, [&] { return receive(timeout); });
    }
    return in_turn(std::nullopt, timeout, [&] { return receive(timeout); });
  }

  // A list of 1 to `most` messages, or an event.
  nb::object recv_many(std::size_t most, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    // Its first place is there before a message is taken for it.
    nb::object messages = nb::steal(PyList_New(1));
    if (!messages.is_valid()) throw nb::python_error();
    // No hole in it meanwhile: the garbage collector shows it to others.
    PyList_SET_ITEM(messages.ptr(), 0, nb::none().release().ptr());
    return in_turn(std::nullopt, timeout, [&]() -> nb::object {
      nb::object first = receive(timeout);
      if (!PyBytes_Check(first.ptr())) return first;
      PyList_SetItem(messages.ptr(), 0, first.release().ptr());
      while (static_cast<std::size_t>(PyList_GET_SIZE(messages.ptr())) < most &&
             channel_.poll_message() == Status::ok && channel_.message_complete()) {
        const nb::object next = nb::steal(copy());
        if (!next.is_valid() || PyList_Append(messages.ptr(), next.ptr()) != 0) {
          // No memory for more now. They stay where they are.
          PyErr_Clear();
          break;
        }
        channel_.consume();
      }
      return messages;
    });
  }

  // The number of bytes written to `target`, or an event; with too_small, the length it takes.
  nb::object recv_into(nb::handle target, nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    Room room;
    if (!room.open(target.ptr())) throw nb::python_error();
    return in_turn(std::nullopt, timeout, [&] { return receive_into(room, timeout); });
  }

  bool peer_alive() { return channel_.peer_alive(); }
  // Whether recv(0) would find at least the beginning of a message. True when another thread is
  // receiving, who will see for himself.
  bool has_message() {
    if (!channel_.receiving.try_take()) return !channel_.is_closed();
    const Turn turn(channel_.receiving);
    return pending_.is_valid() || channel_.wait_message(Deadline::immediate()) == Status::ok;
  }
  // The Python identifiers of the threads that made the last view and the last loan.
  std::uint64_t receive_leaser() const { return channel_.receiving.leaser(); }
  std::uint64_t send_leaser() const { return channel_.sending.leaser(); }
  bool is_closed() const { return channel_.is_closed(); }
  int handle() const { return channel_.handle(); }
  const char* violation() const { return channel_.violation(); }
  int last_error() const { return channel_.last_error(); }
  void close(nb::handle seconds) {
    Timeout timeout;
    if (!timeout.parse(seconds.ptr())) throw nb::python_error();
    const Deadline deadline = timeout.deadline();
    Status status;
    {
      const WithoutGil released;
      status = channel_.close(deadline);
    }
    if (status == Status::interrupted) throw nb::python_error();
  }
  void abandon() { channel_.abandon(); }

 protected:
  using Turn = DirectionLock::Turn;

  // Made before a Turn, so that it ends after it. A call that let signal handlers run does what one
  // of them, or another thread, could not do while this call was inside: end the closing.
  class Leaving {
   public:
    explicit Leaving(ChannelObject& object) : channel_(object.channel_) {}
    Leaving(const Leaving&) = delete;
    Leaving& operator=(const Leaving&) = delete;
    ~Leaving() {
      if (!channel_.owes_close()) [[likely]]
        return;
      const WithoutGil released;
      channel_.finish_close();
    }

   private:
    Channel& channel_;
  };

  Status take(DirectionLock& lock, Timeout& timeout) {
    if (lock.try_take()) [[likely]]
      return Status::ok;
    const Deadline deadline = timeout.deadline();
    const WithoutGil released(&lock);
    return channel_.enter(lock, deadline, kSignals);
  }

  // Runs `body` with the receiving direction held, which the caller may have taken already.
  template <class Body>
  nb::object in_turn(std::optional<Turn> taken, Timeout& timeout, Body body) {
    const Leaving leaving(*this);
    std::optional<Turn> turn(std::move(taken));
    if (!turn) {
      const Status status = take(channel_.receiving, timeout);
      if (status != Status::ok) return event(status, timeout);
      turn.emplace(channel_.receiving);
    }
    return body();
  }

  // A sender only learns that the peer is gone.
  Status how_it_went(Status status) {
    if (status != Status::peer_lost) [[likely]]
      return status;
    const WithoutGil released;
    return channel_.how_it_ended();
  }

  // All of it without the GIL: a thread that waited for it here would keep the others from sending.
  nb::object send_waiting(const Payload& payload, Timeout& timeout, std::optional<Turn> taken) {
    const Leaving leaving(*this);
    Status status = Status::ok;
    {
      std::optional<Turn> turn(std::move(taken));
      const Deadline deadline = timeout.deadline();
      const WithoutGil released;
      if (!turn) {
        status = channel_.enter(channel_.sending, deadline, kSignals);
        if (status == Status::ok) turn.emplace(channel_.sending);
      }
      if (turn) {
        status = channel_.send(payload.data(), payload.length(), deadline);
        turn.reset();
      }
    }
    if (status == Status::ok) return nb::none();
    return event(how_it_went(status), timeout);
  }

  // With the sending direction held. `sent`: how many went out, whatever comes of it.
  Status send_batch(nb::handle batch, Py_ssize_t& sent, Timeout& timeout) {
    const Py_ssize_t count = PyTuple_GET_SIZE(batch.ptr());
    Status status = Status::ok;
    while (sent < count) {
      Payload payload(&channel_.sending);
      if (!payload.read(PyTuple_GET_ITEM(batch.ptr(), sent))) {
        nb::python_error error;
        flush(timeout);
        sent -= static_cast<Py_ssize_t>(channel_.unflushed());
        error.value().attr("add_note")(nb::str("send_many() had sent {} before it").format(sent));
        throw error;
      }
      status = channel_.put(payload.data(), payload.length());
      if (status == Status::timed_out) {
        status = flush(timeout);
        if (status != Status::ok) break;
        status = channel_.put(payload.data(), payload.length());
        // It fits no batch, or not now.
        if (status == Status::timed_out) {
          const Deadline deadline = timeout.deadline();
          const WithoutGil released(&channel_.sending);
          status = channel_.send(payload.data(), payload.length(), deadline);
        }
      }
      if (status != Status::ok) break;
      ++sent;
    }
    if (status == Status::ok || status == Status::too_large) {
      const Status flushed = flush(timeout);
      if (status == Status::ok) status = flushed;
    }
    sent -= static_cast<Py_ssize_t>(channel_.unflushed());
    return status;
  }

  Status flush(Timeout& timeout) {
    const Deadline deadline = timeout.deadline();
    const WithoutGil released(&channel_.sending);
    return channel_.flush(deadline);
  }

  Status next(Timeout& timeout) {
    const Status status = channel_.poll_message();
    if (status != Status::timed_out) return status;
    const Deadline deadline = timeout.deadline();
    const WithoutGil released(&channel_.receiving);
    return channel_.wait_message(deadline);
  }

  bool is_short() const {
    return channel_.message_complete() && channel_.message_length() <= kCopyWithGil;
  }

  // True when what is missing of a short message came at once, and was copied: its sender is in the
  // middle of its copy then, which is over before the GIL would be handed over and taken back.
  bool rest_is_short() {
    if constexpr (Channel::kInPlace)
      return channel_.message_length() <= kCopyWithGil && channel_.read_soon(pending_data());
    return false;
  }

  // A complete message as bytes; null, with an exception set, when there is no memory for it.
  PyObject* copy() {
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(channel_.message_data()),
                                     static_cast<Py_ssize_t>(channel_.message_length()));
  }

  nb::object copy_out() {
    PyObject* const message = copy();
    if (message == nullptr) [[unlikely]]
      throw nb::python_error();
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
    const WithoutGil released(&channel_.receiving);
    return channel_.read_message(destination, deadline, restart);
  }

  nb::object receive(Timeout& timeout) {
    for (;;) {
      Status status = next(timeout);
      if (status != Status::ok) return event(status, timeout);
      if (!pending_.is_valid()) {
        if (is_short()) [[likely]]
          return copy_out();
        make_pending();
        if (rest_is_short()) return std::exchange(pending_, nb::object());
      }
      bool restart = false;
      status = read(pending_data(), timeout, restart);
      if (goes_on_later(status)) return event(status, timeout);
      nb::object message = std::move(pending_);
      pending_ = nb::object();
      if (status != Status::ok) return event(status, timeout);
      if (!restart) return message;
    }
  }

  nb::object receive_into(const Room& target, Timeout& timeout) {
    for (;;) {
      Status status = next(timeout);
      if (status != Status::ok) return event(status, timeout);
      const std::uint64_t length = channel_.message_length();
      if (length > target.length())
        return event(Status::too_small, timeout, length);
      // Before the message is taken off: there may be no memory for a number either.
      nb::int_ result(length);
      bool restart = false;
      if (pending_.is_valid()) {
        status = read(pending_data(), timeout, restart);
        if (status == Status::ok && !restart)
          std::memcpy(target.data(), pending_data(), static_cast<std::size_t>(length));
        if (!goes_on_later(status)) pending_ = nb::object();
      } else {
        auto* const destination = static_cast<std::byte*>(target.data());
        status = read(destination, timeout, restart);
        if (goes_on_later(status) && channel_.copied() > 0) {
          // The caller's buffer may be gone at the next call.
          keep_pending(destination, status);
        }
      }
      if (status != Status::ok) return event(status, timeout);
      if (!restart) return result;
    }
  }

  void keep_pending(const std::byte* partly, Status status) {
    PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
    if (status == Status::interrupted) PyErr_Fetch(&type, &value, &trace);
    try {
      make_pending();
    } catch (nb::python_error&) {
      // Neither the error nor the part is lost without a word.
      channel_.forget_copied();
      if (status != Status::interrupted) throw;
    }
    if (status == Status::interrupted) PyErr_Restore(type, value, trace);
    if (pending_.is_valid())
      std::memcpy(pending_data(), partly, static_cast<std::size_t>(channel_.copied()));
  }

  Channel channel_;
  nb::object pending_;
  const ForkedCopy copy_{[](void* channel) { static_cast<Channel*>(channel)->mark_abandoned(); },
                         &channel_};
};

}  // namespace proclink::python
