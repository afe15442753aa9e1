// Keeps signals from the calling thread, as a context manager. Entering and leaving are one step to a
// signal handler, which those of Python's signal module are not.
#pragma once

#include <signal.h>

namespace proclink::python {

class SignalBlock {
 public:
  void enter() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  void exit() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace proclink::python
