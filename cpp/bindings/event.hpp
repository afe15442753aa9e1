// What a call of a channel came to when no message went through.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "gil.hpp"
#include "status.hpp"

namespace proclink::python {

namespace nb = nanobind;

// False in Python, as every message but the empty one is true: the usual outcome of a call is then
// told from this one by the cheapest test there is.
struct Event {
  int status;
  nb::object left;  // seconds left of the timeout, None without one
  std::uint64_t detail;
};

inline nb::object event(Status status, Timeout& timeout, std::uint64_t detail = 0) {
  // The signal handler's exception is set already.
  if (status == Status::interrupted) throw nb::python_error();
  return nb::cast(new Event{static_cast<int>(status), timeout.remaining(), detail},
                  nb::rv_policy::take_ownership);
}

inline int event_is_true(PyObject*) { return 0; }

inline PyType_Slot event_slots[] = {
    {Py_nb_bool, reinterpret_cast<void*>(event_is_true)},
    {0, nullptr},
};

}  // namespace proclink::python
