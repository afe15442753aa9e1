// proclink._core: the native channels. No policy here; see src/proclink/_core.pyi for the contract.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <pthread.h>

#include <algorithm>
#include <memory>
#include <string>

#include "channel_object.hpp"
#include "descriptors.hpp"
#include "doorbell.hpp"
#include "event.hpp"
#include "fork_region.hpp"
#include "lease.hpp"
#include "origin.hpp"
#include "segment.hpp"
#include "shm_channel.hpp"
#include "signals.hpp"
#include "spin.hpp"
#include "stream_channel.hpp"
#include "waiting.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace proclink::python {
namespace {

// The memory, then the doorbells of the end that made it, then those of the other one.
constexpr std::size_t kShmDescriptors = 5;

[[noreturn]] void raise(const SystemError& error) {
  errno = error.code;
  PyErr_SetFromErrnoWithFilename(PyExc_OSError, error.call);
  throw nb::python_error();
}

void add(Descriptors& descriptors, int handle) {
  if (!descriptors.add(handle)) throw nb::value_error("no more descriptors fit");
}

// socket.socket as it is written in C; kept for good, as the module is.
nb::handle& socket_type() {
  static nb::handle type;
  return type;
}

// The memory and the descriptor that lets a peer map it.
class SegmentObject {
 public:
  explicit SegmentObject(std::shared_ptr<Segment> segment) : segment_(std::move(segment)) {}
  const std::shared_ptr<Segment>& segment() const { return segment_; }

 private:
  std::shared_ptr<Segment> segment_;
};

// The memory; its descriptor, which lets a peer map it, goes to `descriptors`.
SegmentObject create_segment(std::uint64_t capacity, Descriptors& descriptors) {
  SystemError error;
  Segment::Handle handle = -1;
  std::shared_ptr<Segment> segment;
  if (!Segment::valid_capacity(capacity)) throw nb::value_error("not a valid ring capacity");
  {
    const WithoutGil released;
    segment = Segment::create(capacity, handle, error);
  }
  if (error) raise(error);
  add(descriptors, handle);
  return SegmentObject(std::move(segment));
}

SegmentObject attach_segment(Segment::Handle handle, std::uint64_t capacity) {
  SystemError error;
  std::shared_ptr<Segment> segment;
  if (!Segment::valid_capacity(capacity)) throw nb::value_error("not a valid ring capacity");
  {
    const WithoutGil released;
    segment = Segment::attach(handle, capacity, error);
  }
  if (error) raise(error);
  return SegmentObject(std::move(segment));
}

Doorbell::Handle create_doorbell(Descriptors& descriptors) {
  SystemError error;
  Doorbell doorbell = Doorbell::create(error);
  if (error) raise(error);
  const Doorbell::Handle handle = doorbell.release();
  add(descriptors, handle);
  return handle;
}

nb::bytes receive(Descriptors& self, int socket, std::size_t size) {
  SystemError error;
  std::byte data[256];
  const std::size_t count = self.receive(socket, data, std::min(size, sizeof data), error);
  if (error) raise(error);
  return nb::bytes(data, count);
}

int open_path(Descriptors& self, const std::string& path) {
  SystemError error;
  const int handle = self.open_path(path.c_str(), error);
  if (error) raise(error);
  return handle;
}

nb::list handles(const Descriptors& self) {
  nb::list list;
  for (std::size_t index = 0; index < self.count(); ++index) list.append(self.at(index));
  return list;
}

// `socket`, a Python socket, gives its descriptor up and has none any more. By the method of the type
// in C: in that of the type in Python a signal handler may raise, with the descriptor in nobody's hands.
int detach(nb::handle socket) {
  return nb::cast<int>(socket_type().attr("detach")(socket));
}

// With the GIL, and so in one step for a fork: the socket's own close() lets go of it, with the
// descriptor in nobody's hands.
void close_socket(nb::handle socket) {
  Descriptors held;
  held.add(detach(socket));
}

template <class Lease>
int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  return nb::inst_ptr<Lease>(self)->get_buffer(self, view, flags);
}

template <class Lease>
void release_buffer(PyObject* self, Py_buffer*) {
  nb::inst_ptr<Lease>(self)->release_buffer();
}

template <class Lease>
PyType_Slot buffer_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer<Lease>)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(release_buffer<Lease>)},
    {0, nullptr},
};

// send() and recv() are called by the interpreter without nanobind between them: its dispatch costs
// as much as the rest of a call that finds its message there.
template <class Body>
PyObject* guarded(Body body) {
  try {
    return body().release().ptr();
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  return nullptr;
}

bool takes(const char* name, Py_ssize_t count, Py_ssize_t expected) {
  if (count == expected) [[likely]]
    return true;
  PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, %zd given", name, expected, count);
  return false;
}

template <class Object>
PyObject* send(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  if (!takes("send", count, 2)) return nullptr;
  return guarded([&] { return nb::inst_ptr<Object>(self)->send(arguments[0], arguments[1]); });
}

template <class Object>
PyObject* recv(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  if (!takes("recv", count, 1)) return nullptr;
  return guarded([&] { return nb::inst_ptr<Object>(self)->recv(arguments[0]); });
}

template <class Object>
PyMethodDef fast_methods[] = {
    {"send", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(send<Object>)), METH_FASTCALL,
     nullptr},
    {"recv", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(recv<Object>)), METH_FASTCALL,
     nullptr},
    {nullptr, nullptr, 0, nullptr},
};

template <class Object>
PyType_Slot channel_slots[] = {
    {Py_tp_methods, fast_methods<Object>},
    {0, nullptr},
};

template <class Object>
void define_channel(nb::class_<Object>& type) {
  type.def("send_many", &Object::send_many, "messages"_a, "timeout"_a.none())
      .def("recv_many", &Object::recv_many, "most"_a, "timeout"_a.none())
      .def("recv_into", &Object::recv_into, "target"_a, "timeout"_a.none())
      .def("peer_alive", &Object::peer_alive)
      .def("has_message", &Object::has_message)
      .def("close", &Object::close, "timeout"_a.none() = nb::float_(0.0))
      .def("abandon", &Object::abandon)
      .def_prop_ro("closed", &Object::is_closed)
      .def_prop_ro("receive_leaser", &Object::receive_leaser)
      .def_prop_ro("send_leaser", &Object::send_leaser)
      .def_prop_ro("handle", &Object::handle)
      .def_prop_ro("violation", &Object::violation)
      .def_prop_ro("last_error", &Object::last_error);
}

}  // namespace
}  // namespace proclink::python

NB_MODULE(_core_of_one_interpreter, m) {
  using namespace proclink;
  using namespace proclink::python;

  // A daemon thread that waits when the interpreter ends keeps its channel.
  nb::set_leak_warnings(false);

  const std::pair<const char*, Status> statuses[] = {
      {"TIMED_OUT", Status::timed_out},     {"CLOSED", Status::closed},
      {"PEER_CLOSED", Status::peer_closed}, {"PEER_LOST", Status::peer_lost},
      {"TRUNCATED", Status::truncated},     {"CORRUPT", Status::corrupt},
      {"NO_RESOURCES", Status::no_resources},
      {"TOO_LARGE", Status::too_large},     {"TOO_SMALL", Status::too_small},
      {"HELD", Status::held},               {"ENTERED", Status::entered},
      {"TAKEN", Status::taken},             {"LEASED", Status::leased},
  };
  for (const auto& [name, status] : statuses) m.attr(name) = static_cast<int>(status);

  socket_type() = nb::object(nb::module_::import_("_socket").attr("socket")).release();

  m.attr("SMALLEST_RING") = Segment::kSmallestRing;
  m.attr("LARGEST_RING") = Segment::kLargestRing;

  nb::class_<SegmentObject>(m, "Segment");
  nb::class_<Descriptors>(m, "Descriptors", nb::is_weak_referenceable())
      .def(nb::init<>())
      .def("adopt", &add, "handle"_a)
      .def("receive", &receive, "socket"_a, "size"_a)
      .def("open_path", &open_path, "path"_a)
      .def("close", &Descriptors::close)
      .def_prop_ro("handles", &handles);
  m.def("create_segment", &create_segment, "capacity"_a, "descriptors"_a);
  m.def("attach_segment", &attach_segment, "handle"_a, "capacity"_a);
  m.def("close_socket", &close_socket, "socket"_a);
  m.def("create_doorbell", &create_doorbell, "descriptors"_a);
  m.def(
      "set_main_thread", [](unsigned long identifier) { main_thread().store(identifier); },
      "identifier"_a);
  m.def("is_doorbell", &Doorbell::is_one, "handle"_a);
  m.def(
      "measure_wake",
      [](int first_cpu, int second_cpu) {
        const WithoutGil released;
        return measure_wake(first_cpu, second_cpu);
      },
      "first_cpu"_a, "second_cpu"_a);

  nb::class_<Event>(m, "Event", nb::type_slots(event_slots))
      .def(
          "__init__",
          [](Event* self, int status, nb::object left, std::uint64_t detail) {
            new (self) Event{status, std::move(left), detail};
          },
          "status"_a, "left"_a.none(), "detail"_a = 0)
      .def_ro("status", &Event::status)
      .def_ro("left", &Event::left)
      .def_ro("detail", &Event::detail);

  m.def("as_bytes", &as_bytes, "message"_a.none());
  m.def("count_bytes", &count_bytes, "message"_a.none());
  m.def("room", &RoomObject::open, "target"_a.none(), nb::rv_policy::take_ownership);
  nb::class_<RoomObject>(m, "Room")
      .def("__len__", &RoomObject::length)
      .def("fill", &RoomObject::fill, "message"_a)
      .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
      .def("__exit__", [](RoomObject& self, nb::args) { self.exit(); });
  m.def(
      "seconds",
      [](nb::handle given) {
        Timeout timeout;
        if (!timeout.parse(given.ptr())) throw nb::python_error();
        return timeout.seconds();
      },
      "timeout"_a.none());

  nb::class_<EventCountObject>(m, "EventCount")
      .def(nb::init<>())
      .def_prop_ro("count", &EventCountObject::count)
      .def("advance", &EventCountObject::advance)
      .def("wait", &EventCountObject::wait, "seen"_a, "timeout"_a.none());
  m.def(
      "name_thread",
      [](const std::string& name) { ::pthread_setname_np(::pthread_self(), name.c_str()); },
      "name"_a);
  nb::class_<Origin>(m, "Origin").def(nb::init<>()).def("is_here", &Origin::is_here);
  nb::class_<ForkRegion>(m, "ForkRegion")
      .def("__enter__", &ForkRegion::enter)
      .def("__exit__", [](ForkRegion& self, nb::args) { self.exit(); })
      .def("before_fork", &ForkRegion::before_fork)
      .def("after_fork", &ForkRegion::after_fork);
  m.attr("no_fork") = nb::cast(&ForkRegion::one(), nb::rv_policy::reference);
  m.def("call_undisturbed", &call_undisturbed, "work"_a);
  m.def("now", [] { return static_cast<double>(now()) * 1e-9; });
  nb::class_<SignalBlock>(m, "SignalBlock")
      .def(nb::init<>())
      .def("__enter__", &SignalBlock::enter)
      .def("__exit__", [](SignalBlock& self, nb::args) { self.exit(); });
  nb::class_<TurnObject>(m, "Turn")
      .def("__enter__", &TurnObject::enter)
      .def("__exit__", [](TurnObject& self, nb::args) { self.exit(); });
  nb::class_<DirectionLockObject>(m, "DirectionLock")
      .def(nb::init<>())
      .def("turn", &DirectionLockObject::turn, "timeout"_a.none())
      .def("close", &DirectionLockObject::close);

  nb::class_<ViewLease>(m, "ViewLease", nb::type_slots(buffer_slots<ViewLease>));
  nb::class_<LoanLease>(m, "LoanLease", nb::type_slots(buffer_slots<LoanLease>))
      .def("commit", &LoanLease::commit, "length"_a)
      .def("discard", &LoanLease::discard)
      .def_prop_ro("exported", &LoanLease::exported);

  using Stream = ChannelObject<StreamChannel>;
  nb::class_<Stream> stream(m, "StreamChannel", nb::is_weak_referenceable(),
                            nb::type_slots(channel_slots<Stream>));
  stream.def(
      "__init__",
      [](Stream* self, nb::handle socket, std::uint64_t max_send, std::uint64_t max_receive,
         Nanoseconds spin) {
        // It closes what it cannot use.
        new (self) Stream(detach(socket), Limits{max_send, max_receive, spin}, kSignals);
      },
      "socket"_a, "max_send"_a, "max_receive"_a, "spin"_a);
  define_channel(stream);

  nb::class_<ShmChannelObject> shm(m, "ShmChannel", nb::is_weak_referenceable(),
                                   nb::type_slots(channel_slots<ShmChannelObject>));
  shm.def(
      "__init__",
      [](ShmChannelObject* self, const SegmentObject& segment, Descriptors& descriptors,
         nb::handle control, long pid, bool creator, std::uint64_t max_send,
         std::uint64_t max_receive, Nanoseconds spin) {
        if (descriptors.count() != kShmDescriptors)
          throw nb::value_error("not the descriptors of a channel");
        SystemError error;
        const int process =
            PeerWatch::open_process(nb::cast<int>(control.attr("fileno")()), pid, error);
        if (error) raise(error);
        Descriptors held;
        held.add(process);
        const int handle = detach(control);
        PeerWatch watch(handle, held.take(0));
        const auto bells = [&](std::size_t index) {
          return Doorbells{Doorbell(descriptors.take(index)), Doorbell(descriptors.take(index + 1))};
        };
        Doorbells creators = bells(1), others = bells(3);
        descriptors.close();  // the memory is mapped
        new (self) ShmChannelObject(segment.segment(), creator,
                                    std::move(creator ? creators : others),
                                    std::move(creator ? others : creators), std::move(watch),
                                    Limits{max_send, max_receive, spin}, kSignals);
      },
      "segment"_a, "descriptors"_a, "control"_a, "pid"_a, nb::kw_only(), "creator"_a, "max_send"_a,
      "max_receive"_a, "spin"_a);
  define_channel(shm);
  shm.def("recv_view", &ShmChannelObject::recv_view, "timeout"_a.none())
      .def("loan", &ShmChannelObject::loan, "size"_a, "timeout"_a.none());
}

// What is here once for the process, nanobind's part too, is there for one interpreter. This stands in
// the place of nanobind's own function (Py_mod_exec), which would take it over for another.
namespace {

int execute(PyObject* module) {
  if (PyInterpreterState_Get() == PyInterpreterState_Main())
    return nanobind__core_of_one_interpreter_exec(module);
  PyErr_SetString(PyExc_ImportError, "proclink works in the main interpreter only");
  return -1;
}

}  // namespace

extern "C" NB_EXPORT PyObject* PyInit__core() {
  PyObject* const definition = PyInit__core_of_one_interpreter();
  if (definition == nullptr) return nullptr;
  for (PyModuleDef_Slot* slot = reinterpret_cast<PyModuleDef*>(definition)->m_slots; slot->slot != 0;
       ++slot)
    if (slot->slot == Py_mod_exec) slot->value = reinterpret_cast<void*>(&execute);
  return definition;
}
