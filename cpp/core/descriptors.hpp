// Descriptors on their way from the system, or from a peer, to the channel that takes them. They have
// an owner from their first moment: nothing that ends the caller in between, a signal handler that
// raises, say, leaves one open.
#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "system_error.hpp"

namespace proclink {

class Descriptors {
 public:
  using Handle = int;
  static constexpr Handle kNone = -1;
  static constexpr std::size_t kMost = 8;

  Descriptors() = default;
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  ~Descriptors() { close(); }

  // Takes ownership. False, and the handle closed, when there are kMost.
  bool add(Handle handle);
  // Opens a path as a name only, for connecting to a socket by a long path.
  Handle open_path(const char* path, SystemError& error);
  // Receives up to `size` bytes from a Unix socket, and the descriptors that come with them,
  // close-on-exec. Never waits: EAGAIN when there is nothing. The end of the connection is 0 bytes. An
  // error of this process's limit (EMFILE, ENFILE) when it could not take all descriptors; those that
  // it took are here.
  std::size_t receive(Handle socket, void* data, std::size_t size, SystemError& error);

  std::size_t count() const { return count_; }
  Handle at(std::size_t index) const { return handles_[index]; }
  Handle take(std::size_t index) { return std::exchange(handles_[index], kNone); }  // to the caller
  void close();

 private:
  std::array<Handle, kMost> handles_{};
  std::size_t count_ = 0;
};

}  // namespace proclink
