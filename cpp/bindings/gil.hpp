// What the bindings need of the interpreter around a waiting call.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "clock.hpp"
#include "interruption.hpp"

namespace proclink::python {

// When the interpreter ends, it ends every other thread that asks for the GIL by unwinding its stack
// (pthread_exit), which C++ answers with std::terminate. So from then on, threads that come back from
// a wait stop here, for the short time that is left. Python calls begin() at exit, when only daemon
// threads are left beside the calling one.
class InterpreterExit {
 public:
  static void begin() {
    ending_thread() = std::this_thread::get_id();
    begun().store(true, std::memory_order_seq_cst);
    // Whoever was already asking for the GIL gets it now.
    constexpr int kPatience = 1000;  // milliseconds
    PyThreadState* const state = PyEval_SaveThread();
    for (int waited = 0; waited < kPatience && asking().load(std::memory_order_seq_cst) > 0; ++waited)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    PyEval_RestoreThread(state);
  }

  // Around asking for the GIL.
  static void ask() {
    asking().fetch_add(1, std::memory_order_seq_cst);
    if (!begun().load(std::memory_order_seq_cst) ||
        std::this_thread::get_id() == ending_thread()) [[likely]]
      return;
    asking().fetch_sub(1, std::memory_order_seq_cst);
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  static void have() { asking().fetch_sub(1, std::memory_order_seq_cst); }

 private:
  static std::atomic<bool>& begun() {
    static std::atomic<bool> begun{false};
    return begun;
  }
  static std::atomic<int>& asking() {
    static std::atomic<int> asking{0};
    return asking;
  }
  static std::thread::id& ending_thread() {
    static std::thread::id thread;
    return thread;
  }
};

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    InterpreterExit::ask();
    PyEval_RestoreThread(state_);
    InterpreterExit::have();
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// Python runs signal handlers in its main thread alone, whose identifier the package tells.
inline std::atomic<unsigned long>& main_thread() {
  static std::atomic<unsigned long> identifier{0};
  return identifier;
}

inline bool handles_signals() {
  return PyThread_get_thread_ident() == main_thread().load(std::memory_order_relaxed);
}

// Runs the Python signal handlers. True when one raised; the exception stays set.
inline bool signal_raised() {
  InterpreterExit::ask();
  const PyGILState_STATE state = PyGILState_Ensure();
  InterpreterExit::have();
  const bool raised = PyErr_CheckSignals() != 0;
  PyGILState_Release(state);
  return raised;
}

inline constexpr Interruption kSignals(handles_signals, signal_raised);

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
