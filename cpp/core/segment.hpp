// The memory two processes share: two rings, one a direction. It has no name anywhere, so nothing
// of it can be left behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "ring.hpp"
#include "system_error.hpp"

namespace proclink {

class Segment {
 public:
  using Handle = int;
  static constexpr std::uint64_t kSmallestRing = 64 * 1024;
  static constexpr std::uint64_t kLargestRing = std::uint64_t{1} << 32;

  // Makes memory for two rings of `capacity` bytes (a power of two within the bounds above), all of
  // it allocated now, sealed against growing and shrinking. `handle` is the caller's to close.
  static std::shared_ptr<Segment> create(std::uint64_t capacity, Handle& handle,
                                         SystemError& error);

  // Maps memory received from a peer after checking that it cannot shrink, has the right size and is
  // all allocated: what is not would be taken by this process, page by page as it is mapped.
  static std::shared_ptr<Segment> attach(Handle handle, std::uint64_t capacity,
                                         SystemError& error);

  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  // Ring 0 carries what the creator sends, ring 1 what it receives.
  RingMemory ring(int index) const;

  static bool valid_capacity(std::uint64_t capacity) {
    return capacity >= kSmallestRing && capacity <= kLargestRing &&
           (capacity & (capacity - 1)) == 0;
  }

 private:
  Segment(std::byte* base, std::uint64_t capacity, std::size_t page, int owner)
      : base_(base), capacity_(capacity), page_(page), owner_(owner) {}
  static std::shared_ptr<Segment> map(Handle handle, std::uint64_t capacity, SystemError& error);

  std::byte* base_;
  std::uint64_t capacity_;
  std::size_t page_;
  int owner_;  // the process that mapped it
};

}  // namespace proclink
