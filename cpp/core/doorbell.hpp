// Wakes a sleeping peer; carries no data. An eventfd on Linux.
#pragma once

#include <utility>

#include "system_error.hpp"

namespace proclink {

class Doorbell {
 public:
  using Handle = int;
  static constexpr Handle kNone = -1;

  Doorbell() = default;
  explicit Doorbell(Handle handle) : handle_(handle) {}  // takes ownership
  Doorbell(Doorbell&& other) noexcept : handle_(std::exchange(other.handle_, kNone)) {}
  Doorbell& operator=(Doorbell&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Doorbell() { close(); }

  static Doorbell create(SystemError& error);

  // Whether a handle received from a peer is one of a doorbell.
  static bool is_one(Handle handle);

  // Neither blocks, whatever the peer, who has the same descriptor, made of it. ring() is false when
  // the peer made the doorbell one that blocks.
  bool ring() const;
  void drain() const;  // forgets every ring so far
  void close();
  Handle handle() const { return handle_; }
  Handle release() { return std::exchange(handle_, kNone); }  // to the caller

 private:
  Handle handle_ = kNone;
};

}  // namespace proclink
