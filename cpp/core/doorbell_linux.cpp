#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "doorbell.hpp"

namespace proclink {

Doorbell Doorbell::create(SystemError& error) {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) error = {errno, "eventfd"};
  return Doorbell(fd);
}

bool Doorbell::is_one(Handle handle) {
  char link[32];
  char target[32] = {};
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  return ::readlink(link, target, sizeof target - 1) > 0 &&
         std::strcmp(target, "anon_inode:[eventfd]") == 0;
}

void Doorbell::ring() const {
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full, and a full counter wakes as well as one does.
  while (::write(handle_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Doorbell::drain() const {
  std::uint64_t count;
  while (::read(handle_, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

void Doorbell::close() {
  if (handle_ != kNone) ::close(std::exchange(handle_, kNone));
}

}  // namespace proclink
