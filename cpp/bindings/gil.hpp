// What the bindings need of the interpreter around a waiting call.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "clock.hpp"
#include "direction_lock.hpp"
#include "interruption.hpp"

namespace proclink::python {

// Python runs signal handlers in its main thread alone, whose identifier the package tells.
inline std::atomic<unsigned long>& main_thread() {
  static std::atomic<unsigned long> identifier{0};
  return identifier;
}

inline bool handles_signals() {
  return PyThread_get_thread_ident() == main_thread().load(std::memory_order_relaxed);
}

inline bool interpreter_ends() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// When the interpreter ends, it ends every thread but the main one as it comes back for the GIL: up to
// Python 3.13 by unwinding its stack (pthread_exit), over destructors that would touch Python's
// objects without the GIL; from 3.14 on by never letting it go on. So such a thread stays here for
// the short time that is left. It gives the direction back that it may hold first: a link that is
// closed so late waits for those inside.
[[noreturn]] inline void stay(DirectionLock* held) {
  if (held != nullptr && held->is_mine()) held->give();
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Calls what may run code of the user's, which gives the GIL up and takes it back as it likes. `held`:
// a direction that the caller may hold.
template <class Call>
auto may_run_python(Call call, DirectionLock* held = nullptr) {
  try {
    return call();
  } catch (...) {  // the unwinding, which comes as an exception that nobody may end
    stay(held);
  }
}

// While this lives, other threads may run Python. `held`: a direction that the caller may hold at the
// end of it.
class WithoutGil {
 public:
  explicit WithoutGil(DirectionLock* held = nullptr) : held_(held), state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    if (interpreter_ends() && !handles_signals()) stay(held_);
    may_run_python([this] { PyEval_RestoreThread(state_); }, held_);
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  DirectionLock* held_;
  PyThreadState* state_;
};

// Runs the Python signal handlers; for the main thread, which the interpreter never ends. True when
// one raised; the exception stays set.
inline bool signal_raised() {
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  PyGILState_Release(state);
  return raised;
}

inline constexpr Interruption kSignals(handles_signals, signal_raised);

// A `timeout` argument: None waits for good, 0 only tries, else seconds.
class Timeout {
 public:
  // False with an exception set when it is neither None nor a real number >= 0, of whatever type.
  bool parse(PyObject* timeout) {
    if (timeout == Py_None) return true;
    seconds_ = may_run_python([timeout] { return PyFloat_AsDouble(timeout); });
    if (seconds_ == -1.0 && PyErr_Occurred()) {
      explain(timeout);
      return false;
    }
    if (!(seconds_ >= 0.0)) {
      PyErr_Format(PyExc_ValueError, "%s, not %R", kExpected, timeout);
      return false;
    }
    forever_ = false;
    return true;
  }

  // None, or as a float.
  nanobind::object seconds() const {
    if (forever_) return nanobind::none();
    return nanobind::float_(seconds_);
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
  static constexpr const char* kExpected =
      "timeout must be None (wait), 0 (try) or a positive number of seconds";

  // Puts what was expected around the exception that is set.
  static void explain(PyObject* timeout) {
    const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError) != 0;
    if (!too_large && !PyErr_ExceptionMatches(PyExc_TypeError)) return;
    nanobind::python_error error;
    if (too_large) {
      nanobind::raise_from(error, PyExc_ValueError, "%s that fits a float", kExpected);
    } else {
      nanobind::raise_from(error, PyExc_TypeError, "%s, not %.100s", kExpected,
                           Py_TYPE(timeout)->tp_name);
    }
  }

  double seconds_ = 0.0;
  bool forever_ = true;
  bool started_ = false;
  Deadline deadline_ = Deadline::never();
};

}  // namespace proclink::python
