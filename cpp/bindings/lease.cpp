#include "lease.hpp"

namespace proclink::python {

nb::object ShmChannelObject::recv_view(nb::object self, nb::handle seconds) {
  auto& object = nb::cast<ShmChannelObject&>(self);
  ShmChannel& channel = object.channel_;
  Timeout timeout;
  if (!timeout.parse(seconds.ptr())) throw nb::python_error();
  const Leaving leaving(object);
  Status status = object.take(channel.receiving, timeout);
  if (status != Status::ok) return event(status, timeout);
  Turn turn(channel.receiving);
  status = object.next(timeout);
  if (status != Status::ok) return event(status, timeout);
  if (object.pending_.is_valid() || !channel.fits_in_place()) return object.receive(timeout);
  {
    const Deadline deadline = timeout.deadline();
    const WithoutGil released(&channel.receiving);
    status = channel.complete_message(deadline);
  }
  if (status != Status::ok) return event(status, timeout);
  // From here on the lease gives the direction back.
  const nb::object lease = nb::cast(new ViewLease(self, channel), nb::rv_policy::take_ownership);
  turn.lease(PyThread_get_thread_ident());
  nb::object view = nb::steal(PyMemoryView_FromObject(lease.ptr()));
  if (!view.is_valid()) throw nb::python_error();
  return view;
}

nb::object ShmChannelObject::loan(nb::object self, std::size_t length, nb::handle seconds) {
  auto& object = nb::cast<ShmChannelObject&>(self);
  ShmChannel& channel = object.channel_;
  Timeout timeout;
  if (!timeout.parse(seconds.ptr())) throw nb::python_error();
  if (length > channel.longest_loan()) return nb::none();
  const Leaving leaving(object);
  Status status = object.take(channel.sending, timeout);
  if (status != Status::ok) return event(status, timeout);
  Turn turn(channel.sending);
  std::byte* room = nullptr;
  {
    const Deadline deadline = timeout.deadline();
    const WithoutGil released(&channel.sending);
    status = channel.loan(length, deadline, room);
  }
  if (status != Status::ok) return event(status, timeout);
  const nb::object lease = nb::cast(new LoanLease(self, channel, room, length),
                                    nb::rv_policy::take_ownership);
  turn.lease(PyThread_get_thread_ident());
  return lease;
}

}  // namespace proclink::python
