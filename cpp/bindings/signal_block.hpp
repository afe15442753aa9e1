// Keeps signals from the calling thread, as a context manager. Entering and leaving are one step to a
// signal handler, which those of Python's signal module are not. A thread started inside keeps them
// from itself for good.
#pragma once

#include <signal.h>

#include <initializer_list>

namespace proclink::python {

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

}  // namespace proclink::python
