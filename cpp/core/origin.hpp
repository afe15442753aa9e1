// Whether an object belongs to this process, or is the copy that a forked child has of its parent's.
//
// A child has only the thread that forked: a mutex that another one held is locked for good, and a
// condition variable that another one waited at is of no use. So what may be asked in a child looks
// here before it touches one.
#pragma once

#include <atomic>
#include <cstdint>

namespace proclink {

// Counts the forks between the process in which this was loaded and this one. Changed in a child before
// anything else runs there.
std::uint32_t forks();

class Origin {
 public:
  bool is_here() const { return forks() == made_; }

 private:
  std::uint32_t made_ = forks();
};

}  // namespace proclink
