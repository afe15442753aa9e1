// What the bindings need of the interpreter around a waiting call.
#pragma once

#include <nanobind/nanobind.h>

#include "clock.hpp"

namespace proclink::python {

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// The core's hook: runs the Python signal handlers. True when one raised; the exception stays set.
inline bool signal_raised() {
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  PyGILState_Release(state);
  return raised;
}

// A `timeout` argument: None waits for good, 0 only tries, else seconds.
class Timeout {
 public:
  // False with an exception set when it is neither None nor a number >= 0.
  bool parse(PyObject* timeout) {
    if (timeout == Py_None) return true;
    seconds_ = PyFloat_AsDouble(timeout);
    if (seconds_ == -1.0 && PyErr_Occurred()) return false;
    if (!(seconds_ >= 0.0)) {
      PyErr_SetString(PyExc_ValueError,
                      "timeout must be None (wait), 0 (try) or a positive number of seconds");
      return false;
    }
    forever_ = false;
    return true;
  }

  // Starts the clock at the first call, which a message that is there already never makes.
  Deadline deadline() {
    if (!started_) {
      started_ = true;
      constexpr double kLongest = 9e9;  // seconds; about what 63 bits of nanoseconds hold
      if (!forever_ && seconds_ < kLongest)
        deadline_ = Deadline::after(static_cast<Nanoseconds>(seconds_ * 1e9));
    }
    return deadline_;
  }

  // Seconds left for a caller that goes on waiting elsewhere, or None.
  nanobind::object remaining() {
    const Deadline deadline = this->deadline();
    if (deadline.is_never()) return nanobind::none();
    return nanobind::float_(static_cast<double>(deadline.remaining()) * 1e-9);
  }

 private:
  double seconds_ = 0.0;
  bool forever_ = true;
  bool started_ = false;
  Deadline deadline_ = Deadline::never();
};

}  // namespace proclink::python
