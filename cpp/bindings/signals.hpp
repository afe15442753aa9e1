// The calling thread's signals.
#pragma once

#include <nanobind/nanobind.h>
#include <signal.h>

#include <initializer_list>

namespace proclink::python {

// Keeps them from the thread, as a context manager. Entering and leaving are one step to a signal
// handler, which those of Python's signal module are not. A thread started inside keeps them from itself
// for good.
class SignalBlock {
 public:
  void enter() {
    sigset_t all;
    ::sigfillset(&all);
    // A fault is the thread's own; blocked, it would end the process without the handler for it.
    for (const int fault : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP}) {
      ::sigdelset(&all, fault);
    }
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  void exit() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

// Calls `work()` with the signals blocked. What a handler raises in it, whose signal came before, does
// not cut it short: it is called again.
inline void call_undisturbed(nanobind::handle work) {
  constexpr int kMostSignals = 64;
  SignalBlock signals;
  signals.enter();
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  for (int turn = 0; turn < kMostSignals; ++turn) {
    const auto done = nanobind::steal(PyObject_CallNoArgs(work.ptr()));
    if (done.is_valid()) break;
    if (type != nullptr) {
      PyErr_Clear();
    } else {
      PyErr_Fetch(&type, &value, &trace);
    }
  }
  signals.exit();
  if (type != nullptr) {
    PyErr_Restore(type, value, trace);
    throw nanobind::python_error();
  }
}

}  // namespace proclink::python
