// Views of ring memory: a received message read in place, a message to send written in place.
//
// Both keep the mapping alive whatever happens to the channel, and keep their direction leased, so
// that nothing else is received (or sent) over memory somebody looks at.
#pragma once

#include <memory>
#include <utility>

#include "channel_object.hpp"
#include "shm_channel.hpp"

namespace proclink::python {

class ShmChannelObject;

// Exported to Python only as the owner of a memoryview; the message is consumed when the
// memoryview, and everything made from it, has been released.
class ViewLease {
 public:
  ViewLease(nb::object owner, ShmChannel& channel)
      : owner_(std::move(owner)),
        channel_(channel),
        memory_(channel.memory()),
        data_(channel.message_data()),
        length_(static_cast<Py_ssize_t>(channel.message_length())) {}
  ~ViewLease() { end(false); }

  int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    return PyBuffer_FillInfo(view, self, const_cast<std::byte*>(data_), length_, 1, flags);
  }
  // The one memoryview of this lease is gone, and everything made from it before.
  void release_buffer() { end(true); }

 private:
  void end(bool seen) {
    if (std::exchange(done_, true)) return;
    // Closed meanwhile, or the copy of a forked child, which has no part in the memory.
    if (channel_.is_closed() || !channel_.receiving.end_lease()) return;
    if (seen) channel_.consume();
    channel_.receiving.give();
  }

  nb::object owner_;
  ShmChannel& channel_;
  std::shared_ptr<Segment> memory_;
  const std::byte* data_;
  Py_ssize_t length_;
  bool done_ = false;
};

// Room for one message of `length` bytes. Sent by commit(), thrown away by discard() or with the
// object.
class LoanLease {
 public:
  LoanLease(nb::object owner, ShmChannel& channel, std::byte* room, std::size_t length)
      : owner_(std::move(owner)),
        channel_(channel),
        memory_(channel.memory()),
        room_(room),
        length_(length) {}
  ~LoanLease() { discard(); }

  int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    if (done_) {
      PyErr_SetString(PyExc_BufferError, "the loan was sent or discarded already");
      view->obj = nullptr;
      return -1;
    }
    const int result =
        PyBuffer_FillInfo(view, self, room_, static_cast<Py_ssize_t>(length_), 0, flags);
    if (result == 0) ++exports_;
    return result;
  }
  void release_buffer() {
    if (--exports_ == 0 && discarded_) discard();
  }
  bool exported() const { return exports_ > 0; }

  // Sends the first `length` bytes and gives the status. No view of it may be alive.
  int commit(std::size_t length) {
    if (length > length_) {
      PyErr_SetString(PyExc_ValueError, "cannot send more bytes than were loaned");
      throw nb::python_error();
    }
    if (std::exchange(done_, true)) return static_cast<int>(Status::ok);
    if (channel_.is_closed() || !channel_.sending.end_lease())
      return static_cast<int>(Status::closed);
    const Status status = channel_.commit_loan(length);
    channel_.sending.give();
    return static_cast<int>(status);
  }

  // Gives the room back, as soon as no view of it is alive.
  void discard() {
    discarded_ = true;
    if (exports_ > 0 || std::exchange(done_, true)) return;
    if (!channel_.is_closed() && channel_.sending.end_lease()) channel_.sending.give();
  }

 private:
  nb::object owner_;
  ShmChannel& channel_;
  std::shared_ptr<Segment> memory_;
  std::byte* room_;
  std::size_t length_;
  int exports_ = 0;
  bool discarded_ = false;
  bool done_ = false;
};

class ShmChannelObject : public ChannelObject<ShmChannel> {
 public:
  using ChannelObject::ChannelObject;

  // A read-only memoryview of the next message in place; bytes when it does not lie in one piece;
  // or an event.
  static nb::object recv_view(nb::object self, nb::handle seconds);
  // A LoanLease; None when the message is too long for one record; or an event.
  static nb::object loan(nb::object self, std::size_t length, nb::handle seconds);
};

}  // namespace proclink::python
