#include <pthread.h>

#include <mutex>

#include "fork_guard.hpp"

namespace proclink {
namespace {

std::mutex& mutex() {
  static std::mutex one;
  return one;
}

// The thread that forks is the one that goes on in the child: it may unlock there.
[[maybe_unused]] const int registered = ::pthread_atfork(
    [] { mutex().lock(); }, [] { mutex().unlock(); }, [] { mutex().unlock(); });

}  // namespace

ForkGuard::ForkGuard() { mutex().lock(); }

ForkGuard::~ForkGuard() { mutex().unlock(); }

}  // namespace proclink
