// Monotonic time and deadlines, in nanoseconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

namespace proclink {

using Nanoseconds = std::int64_t;

inline Nanoseconds now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// A point in time after which a call gives up. `never` waits for good, `immediate` only tries.
class Deadline {
 public:
  static Deadline never() { return Deadline(kNever); }
  static Deadline immediate() { return Deadline(0); }
  static Deadline after(Nanoseconds duration) {
    if (duration <= 0) return immediate();
    const Nanoseconds start = now();
    return duration >= kNever - start ? never() : Deadline(start + duration);
  }

  bool is_never() const { return at_ == kNever; }
  bool is_immediate() const { return at_ == 0; }
  bool passed() const { return !is_never() && (is_immediate() || now() >= at_); }

  // Nanoseconds left, 0 when passed; the largest value when there is no deadline.
  Nanoseconds remaining() const {
    if (is_never()) return kNever;
    if (is_immediate()) return 0;
    const Nanoseconds left = at_ - now();
    return left > 0 ? left : 0;
  }

 private:
  static constexpr Nanoseconds kNever = std::numeric_limits<Nanoseconds>::max();
  explicit Deadline(Nanoseconds at) : at_(at) {}
  Nanoseconds at_;
};

}  // namespace proclink
