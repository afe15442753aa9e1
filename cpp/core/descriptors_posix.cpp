#include "descriptors.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fork_guard.hpp"

namespace proclink {
namespace {

// Why the system did not hand over a descriptor that came: it does not say, but a copy of one fails
// for the same reason.
int why_truncated(int socket) {
  const int copy = ::fcntl(socket, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return errno;
  ::close(copy);
  return EMFILE;  // one was closed meanwhile
}

}  // namespace

bool Descriptors::add(Handle handle) {
  if (count_ < kMost) {
    handles_[count_++] = handle;
    return true;
  }
  ::close(handle);
  return false;
}

Descriptors::Handle Descriptors::open_path(const char* path, SystemError& error) {
  const int handle = ::open(path, O_PATH | O_CLOEXEC);
  if (handle < 0) {
    error = {errno, "open"};
    return kNone;
  }
  if (add(handle)) return handle;
  error = {EMFILE, "open"};
  return kNone;
}

std::size_t Descriptors::receive(Handle socket, void* data, std::size_t size, SystemError& error) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMost * sizeof(int))];
  iovec part{data, size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t count;
  do {
    count = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count < 0) {
    error = {errno, "recvmsg"};
    return 0;
  }
  std::size_t came = 0;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr; item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t handles = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t index = 0; index < handles; ++index, ++came) {
      int handle;
      std::memcpy(&handle, CMSG_DATA(item) + index * sizeof handle, sizeof handle);
      // A surplus is closed; the wrong number of them is the caller's to refuse.
      add(handle);
    }
  }
  // There was room for kMost: fewer came, so it was this process that could not take the others.
  if ((message.msg_flags & MSG_CTRUNC) != 0 && came < kMost) error = {why_truncated(socket), "recvmsg"};
  return static_cast<std::size_t>(count);
}

void Descriptors::close() {
  const ForkGuard guard;
  while (count_ > 0) {
    const Handle handle = handles_[--count_];
    if (handle != kNone) ::close(handle);
  }
}

}  // namespace proclink
