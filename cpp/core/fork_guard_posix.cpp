#include <pthread.h>

#include <atomic>
#include <mutex>
#include <utility>

#include "fork_guard.hpp"
#include "origin.hpp"

namespace proclink {
namespace {

std::atomic<std::uint32_t> forked{0};

std::mutex& mutex() {
  static std::mutex one;
  return one;
}

ForkedCopy* first = nullptr;  // with the mutex

// The thread that forks is the one that goes on in the child: it may unlock there.
[[maybe_unused]] const int registered = ::pthread_atfork(
    [] { mutex().lock(); }, [] { mutex().unlock(); },
    [] {
      forked.fetch_add(1, std::memory_order_relaxed);
      ForkedCopy::tell_all();
      mutex().unlock();
    });

}  // namespace

std::uint32_t forks() { return forked.load(std::memory_order_relaxed); }

ForkedCopy::ForkedCopy(void (*tell)(void* of), void* of) : tell_(tell), of_(of) {
  const ForkGuard guard;
  next_ = std::exchange(first, this);
  if (next_ != nullptr) next_->previous_ = this;
}

ForkedCopy::~ForkedCopy() {
  const ForkGuard guard;
  (previous_ != nullptr ? previous_->next_ : first) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

void ForkedCopy::tell_all() {
  for (const ForkedCopy* copy = first; copy != nullptr; copy = copy->next_) copy->tell_(copy->of_);
}

ForkGuard::ForkGuard() { mutex().lock(); }

ForkGuard::~ForkGuard() { mutex().unlock(); }

}  // namespace proclink
