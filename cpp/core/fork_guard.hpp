// Held between the making of a descriptor and its being in its owner's hands, and between its leaving
// them and its end: a fork of this process waits meanwhile, so a child has no descriptor that nobody
// knows. For single steps that need no other lock.
#pragma once

namespace proclink {

class ForkGuard {
 public:
  ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;
  ~ForkGuard();
};

// Something of which a forked child must not use its copy, which is told so before anything else runs in
// the child.
class ForkedCopy {
 public:
  // `tell(of)` may do what a signal handler may.
  ForkedCopy(void (*tell)(void* of), void* of);
  ForkedCopy(const ForkedCopy&) = delete;
  ForkedCopy& operator=(const ForkedCopy&) = delete;
  ~ForkedCopy();

  static void tell_all();

 private:
  void (*tell_)(void* of);
  void* of_;
  ForkedCopy* next_;
  ForkedCopy* previous_ = nullptr;
};

}  // namespace proclink
