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

}  // namespace proclink
