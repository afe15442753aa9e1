#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "doorbell.hpp"
#include "fork_guard.hpp"

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

bool Doorbell::ring() const {
  // A full counter would hold the write for as long as the peer likes, and the kernel knows no
  // write to an eventfd that does not wait but by this flag of the descriptor.
  const int flags = ::fcntl(handle_, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) == 0) return false;
  const std::uint64_t one = 1;
  // EAGAIN means that the counter is full, and a full counter wakes as well as one does.
  while (::write(handle_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  return true;
}

void Doorbell::drain() const {
  std::uint64_t count;
  iovec whole{&count, sizeof count};
  constexpr off_t kNoOffset = -1;
  for (;;) {
    if (::preadv2(handle_, &whole, 1, kNoOffset, RWF_NOWAIT) >= 0) return;
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return;
    // Linux before 5.8. Who takes the ring away between these two holds the read.
    pollfd watched{handle_, POLLIN, 0};
    if (::poll(&watched, 1, 0) <= 0 || ::read(handle_, &count, sizeof count) >= 0) return;
    if (errno != EINTR) return;
  }
}

void Doorbell::close() {
  if (handle_ == kNone) return;
  const ForkGuard guard;
  ::close(std::exchange(handle_, kNone));
}

}  // namespace proclink
